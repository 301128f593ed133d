"""Every user error is one line that names the key or file and the remedy."""

import numpy as np
import pytest

from kdjax.errors import UserError
from tests.data import fakes


def refused(pattern, name, **arguments):
    with pytest.raises(UserError, match=pattern) as caught:
        fakes.load(name, **{"batch_size": 4, **arguments})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(value):
    image = fakes.arrays()["x_train"] / 255
    image[3, 2, 1, 0] = value
    return image


LABELS = fakes.arrays()["y_train"]
NAMES = np.array(["a", "b", "c", "d"])
BAD_NPZ = {
    "negative label": ({"y_train": LABELS - 1}, r"y_train\[0\] is -1, out of range"),
    "label beyond names": (
        {"y_train": LABELS + 1, "class_names": NAMES},
        r"y_train\[3\] is 4, out of range.*\[0, 4\)",
    ),
    "test label beyond train": ({"y_test": np.arange(13)}, r"y_test\[4\] is 4, out of range"),
    "labels from 1": ({"y_train": LABELS + 1}, r"label 0 never occurs.*data\.num_classes"),
    "float labels": ({"y_train": LABELS + 0.5}, r"y_train has dtype float64; labels are integers"),
    "one-hot labels": ({"y_train": np.eye(4)[LABELS]}, r"y_train has shape \(40, 4\)"),
    "NaN": ({"x_train": pixels(np.nan)}, r"x_train\[3\] holds NaN or inf"),
    "inf": ({"x_train": pixels(np.inf)}, r"x_train\[3\] holds NaN or inf"),
    "lengths": ({"y_train": LABELS[:-1]}, r"x_train has 40 images but y_train has shape \(39,\)"),
    "rank": ({"x_train": fakes.arrays()["x_train"][0, 0]}, r"x_train has shape \(5, 3\); images"),
    "empty": (
        {"x_train": np.zeros((0, 6, 5, 3), np.uint8), "y_train": LABELS[:0]},
        r"x_train is empty",
    ),
    "integers": ({"x_train": fakes.arrays()["x_train"].astype(int)}, r"x_train has dtype int64"),
    "shapes differ": (
        {"x_test": np.zeros((13, 6, 6, 3), np.uint8)},
        r"x_train holds uint8 \(6, 5, 3\) but x_test uint8 \(6, 6, 3\)",
    ),
    "channels first": (
        {"x_train": np.zeros((40, 3, 32, 32), np.uint8)},
        r"x_train has shape \(40, 3, 32, 32\), as of channels before.*x_train\.transpose\(0, 2",
    ),
    "grey channels first": (
        {"x_train": np.zeros((40, 1, 9, 9), np.uint8)},
        r"as of channels before",
    ),
    "grey channels first, not square": (
        {"x_train": np.zeros((40, 1, 28, 20), np.uint8)},
        r"as of channels before",
    ),
    "test in 0 to 1": (
        {"x_train": pixels(0.5) * 255, "x_test": pixels(0.5)[:13]},
        r"x_train lies in \[0, 255\] but x_test in \[0, 1\]; scale both alike",
    ),
    "validation in 0 to 1": (
        {"x_val": fakes.arrays()["x_test"] // 255, "y_val": np.arange(13) % 4},
        r"x_train lies in \[0, 255\] but x_val in \[0, 1\]",
    ),
    "validation beyond train": (
        {"x_val": fakes.arrays()["x_test"], "y_val": np.arange(13)},
        r"y_val\[4\] is 4, out of range",
    ),
    "validation without labels": ({"x_val": fakes.arrays()["x_test"]}, r"lacks the keys y_val"),
    "names are numbers": ({"class_names": np.arange(4)}, r"class_names is int64 \(4,\)"),
    "pickled": ({"class_names": np.array(["a", None])}, r"holds pickled objects"),
}


@pytest.mark.parametrize(("changes", "pattern"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_npz(tmp_path, changes, pattern):
    path = fakes.write_npz(tmp_path / "bad.npz", **changes)
    assert refused(pattern, "npz", path=path).startswith("data.path=")


def test_npz_without_the_keys_lists_its_keys(tmp_path):
    path = fakes.write_npz(tmp_path / "bad.npz", drop=("y_train", "x_test"))
    refused(r"lacks the keys y_train, x_test; it holds x_train, y_test", "npz", path=path)


def test_npz_without_test_split_names_the_option_that_splits_one(tmp_path):
    path = fakes.write_npz(tmp_path / "set.npz", drop=("x_test", "y_test"))
    refused(r"lacks the keys x_test, y_test \(or set data\.test", "npz", path=path)
    source = fakes.load("npz", path=path, batch_size=4, test=0.25)
    assert source.size == {"train": 27, "validation": 3, "test": 10}


def test_npz_whose_splits_may_be_scaled_otherwise(tmp_path):
    path = fakes.write_npz(tmp_path / "a.npz", x_train=pixels(0.5), x_test=2 * pixels(0.5)[:13] - 1)
    with pytest.warns(UserWarning, match=r"lies in \[0, 1\] but x_test in \[-1, 1\]; are both"):
        fakes.load("npz", path=path, batch_size=4)


def test_npz_with_keys_that_nothing_reads(tmp_path):
    path = fakes.write_npz(tmp_path / "a.npz", x_valid=np.zeros(3), mean=np.zeros(3))
    with pytest.warns(UserWarning, match=r"nothing reads its keys mean, x_valid$"):
        fakes.load("npz", path=path, batch_size=4)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"])
def test_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    refused("is not a readable .npz", "npz", path=str(tmp_path / "bad.npz"))


def test_npz_truncated(tmp_path):
    path = tmp_path / "bad.npz"
    fakes.write_npz(path)
    path.write_bytes(path.read_bytes()[:-300])
    refused("is not a readable .npz", "npz", path=str(path))


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    refused("is not a readable .npz", "npz", path=str(tmp_path / "x.npy"))


@pytest.mark.parametrize("name", ["npz", "idx", "folder", "tiny_imagenet"])
def test_missing_path(name):
    refused(r"^data\.path is not set; give ", name)
    refused(r"^data\.path=/no/such does not exist; give ", name, path="/no/such")


def test_a_folder_instead_of_an_npz(tmp_path):
    refused("is not a readable .npz", "npz", path=str(tmp_path))


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "pattern"),
        [
            ({"batch_size": 2000}, r"^batch_size is 2000 but the training split has 1213"),
            ({"batch_size": 0}, r"^batch_size is 0"),
            ({"eval_batch_size": 0}, r"^eval_batch_size is 0"),
            ({"validation": 1348}, r"^data\.validation = 1348 leaves no training examples"),
            ({"test": 5000}, r"^data\.test = 5000 leaves no training examples of 1797"),
            ({"test": 0}, r"^data\.test is 0 but digits ships no test split"),
            ({"limit": 0}, r"^data\.limit is 0"),
            ({"split_seed": -1}, r"^data\.split_seed is -1"),
            ({"on_device": "yes"}, r"^data\.on_device is 'yes'"),
            ({"image_size": 32}, r"^data\.image_size is 32 but digits holds images"),
            ({"shape": (8, 8, 3)}, r"^data\.shape is \(8, 8, 3\) but digits holds"),
            ({"num_classes": 7}, r"^data\.num_classes is 7 but digits has 10"),
        ],
    )
    def test_errors(self, arguments, pattern):
        refused(pattern, "digits", **arguments)

    def test_an_existing_test_split_is_not_ignored(self, tmp_path):
        path = fakes.write_npz(tmp_path / "set.npz")
        refused(
            r"^data\.test is 0\.5 but data\.path=.* ships a test split", "npz", path=path, test=0.5
        )

    def test_num_classes_fills_gaps(self, tmp_path):
        path = fakes.write_npz(tmp_path / "set.npz")
        assert fakes.load("npz", path=path, batch_size=4, num_classes=9).spec.num_classes == 9


class TestIdx:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_reads(self, tmp_path, zipped):
        source = fakes.load("idx", path=fakes.write_idx(tmp_path, zipped), batch_size=4)
        assert source.spec.shape == (6, 5, 1)
        batch = next(source.evals["test"]())
        assert np.array_equal(batch["image"][:13, ..., 0], _idx_reference())
        assert batch["label"][:13].tolist() == (np.arange(13) % 4).tolist()

    def test_missing_file(self, tmp_path):
        fakes.write_idx(tmp_path, zipped=False)
        (tmp_path / "t10k-labels-idx1-ubyte").unlink()
        refused(r"has no file t10k-labels-idx1-ubyte or", "idx", path=str(tmp_path))

    @pytest.mark.parametrize(
        ("change", "pattern"),
        [
            (lambda raw: b"\1\2\3\4" + raw[4:], r"starts with 0x01020304.*0x00000803"),
            (lambda raw: raw[:-5], r"header declares \(40, 6, 5\).*truncated"),
            (lambda raw: raw[:6], r"starts with 0x00000803|truncated"),
            (lambda raw: b"", r"starts with 0x;"),
        ],
    )
    def test_damaged(self, tmp_path, change, pattern):
        fakes.write_idx(tmp_path, zipped=False)
        file = tmp_path / "train-images-idx3-ubyte"
        file.write_bytes(change(file.read_bytes()))
        refused(pattern, "idx", path=str(tmp_path))

    def test_damaged_gzip(self, tmp_path):
        fakes.write_idx(tmp_path, zipped=True)
        file = tmp_path / "train-images-idx3-ubyte.gz"
        file.write_bytes(file.read_bytes()[:-20])
        refused("cannot be read as gzip", "idx", path=str(tmp_path))


def _idx_reference():
    return fakes.arrays(shape=(6, 5))["x_test"]
