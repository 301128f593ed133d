"""In-memory sets: splits, batches, statistics."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdjax.data.images.in_memory import channel_moments
from kdjax.data.splits import share, stratified
from kdjax.errors import UserError
from tests.data import fakes


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return fakes.write_npz(tmp_path_factory.mktemp("npz") / "set.npz")


def take(batches, count):
    return [next(batches) for _ in range(count)]


class TestSplits:
    def test_splits_are_a_partition_with_equal_class_shares(self):
        label = np.repeat([0, 1, 2], [70, 20, 10])
        held, rest = stratified(label, 23, seed=3)
        assert np.array_equal(np.sort(np.concatenate([held, rest])), np.arange(100))
        assert len(held) == 23
        counts = np.bincount(label[held], minlength=3)
        assert np.all(np.abs(counts - 23 * np.array([0.7, 0.2, 0.1])) < 1)

    def test_splits_depend_on_the_seed(self):
        label = np.arange(60) % 3
        first, again, other = (stratified(label, 12, seed)[0] for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(
        ("value", "count"), [(0.1, 5), (0.0, 0), (0, 0), (7, 7), (0.001, 1), (0.5, 25)]
    )
    def test_a_share_of_fifty(self, value, count):
        assert share(value, 50, "data.validation") == count

    def test_a_class_keeps_its_last_training_example(self):
        label = np.repeat([0, 1, 2, 3], [20, 20, 1, 2])
        for seed in range(20):
            _, rest = stratified(label, 13, seed, leave_one=True)
            assert set(label[rest]) == {0, 1, 2, 3}
            assert len(rest) == 30
        held, _ = stratified(np.arange(4), 3, 0, leave_one=True)  # where it cannot, it does not
        assert len(held) == 3

    def test_a_class_without_training_examples_is_told(self, tmp_path):
        labels = {"y_train": np.r_[np.zeros(38, int), 1, 2], "y_test": np.zeros(13, int)}
        path = fakes.write_npz(tmp_path / "set.npz", **labels)
        source = fakes.load("npz", path=path, batch_size=4, validation=20)
        assert source.arrays is not None
        assert set(source.arrays["label"]) == {0, 1, 2}
        with pytest.warns(
            UserWarning, match=r"2 classes have no training example left.* number 1;"
        ):
            fakes.load("npz", path=path, batch_size=4, limit=4)

    def test_test_images_that_are_training_images_are_counted(self, tmp_path):
        arrays = fakes.arrays()
        repeated = np.concatenate([arrays["x_test"][:-2], arrays["x_train"][:2]])
        path = fakes.write_npz(tmp_path / "set.npz", x_test=repeated)
        with pytest.warns(UserWarning, match=r"set.npz: 2 of 13 test images are training images"):
            fakes.load("npz", path=path, batch_size=4)

    def test_a_stored_validation_split_is_taken(self, tmp_path):
        held = {"x_val": fakes.arrays(n_train=9)["x_train"][::-1], "y_val": np.arange(9) % 4}
        source = fakes.load("npz", path=fakes.write_npz(tmp_path / "a.npz", **held), batch_size=4)
        assert source.size == {"train": 40, "validation": 9, "test": 13}
        with pytest.warns(UserWarning, match=r"data\.validation is 3, but .* ships a validation"):
            fakes.load("npz", path=str(tmp_path / "a.npz"), batch_size=4, validation=3)
        (batch,) = source.evals["validation"]()
        assert np.array_equal(batch["image"][:9], held["x_val"])
        assert np.array_equal(batch["label"][:9], held["y_val"])

    @pytest.mark.parametrize(
        "value", [1.0, 1.5, -1, -1.0, 40.5, -0.1, -3, 2.5, True, "0.1", float("nan"), None]
    )
    def test_refuses_other_shares(self, value):
        with pytest.raises(UserError, match=r"^data\.validation is "):
            share(value, 50, "data.validation")

    def test_train_validation_and_test_are_disjoint(self):
        source = fakes.load("digits", batch_size=8, test=0.2, validation=100)
        assert source.size == {"train": 1338, "validation": 100, "test": 359}
        assert source.arrays is not None
        parts = [source.arrays["image"]] + [
            np.concatenate([b["image"][b["mask"] > 0] for b in source.evals[name]()])
            for name in ("validation", "test")
        ]
        everything = np.concatenate(parts).reshape(1797, -1)
        from sklearn.datasets import load_digits

        reference = load_digits()["data"]
        assert np.array_equal(  # the same multiset of images: none missing, none twice
            everything[np.lexsort(everything.T)], reference[np.lexsort(reference.T)]
        )

    def test_limit_changes_neither_the_other_splits_nor_the_shares(self, npz):
        full, small = (fakes.load("npz", path=npz, batch_size=4, limit=n) for n in (None, 12))
        assert small.size == {**full.size, "train": 12}
        assert small.arrays is not None
        assert np.bincount(small.arrays["label"]).tolist() == [3, 3, 3, 3]


class TestTrain:
    def test_every_example_once_an_epoch(self):
        source = fakes.load("digits", batch_size=100, on_device=True)
        for epoch in range(2):
            ids = [b["id"] for b in take(source.train(epoch * 12, 5), 12)]  # 1213 // 100
            assert len(set(np.concatenate(ids).tolist())) == 1200
            assert all(set(b) == {"id"} for b in take(source.train(0, 5), 2))
            assert ids[0].dtype == np.int32

    def test_batches_can_start_at_any_step(self, npz):
        source = fakes.load("npz", path=npz, batch_size=7)
        walked = take(source.train(0, 3), 40)
        for step in (0, 1, 4, 5, 17, 39):
            assert np.array_equal(next(source.train(step, 3))["id"], walked[step]["id"])

    def test_seeds_and_epochs_differ(self, npz):
        source = fakes.load("npz", path=npz, batch_size=36, validation=4)
        orders = [
            next(source.train(step, seed))["id"].tolist() for step in (0, 1) for seed in (0, 1)
        ]
        assert len({tuple(order) for order in orders}) == 4

    def test_batches_from_the_host_are_the_same(self, npz):
        on, off = (fakes.load("npz", path=npz, batch_size=8, on_device=d) for d in (True, False))
        assert off.arrays is None
        assert on.arrays is not None
        batch, ids = next(off.train(6, 2)), next(on.train(6, 2))["id"]
        assert np.array_equal(batch["id"], ids)
        assert np.array_equal(batch["image"], on.arrays["image"][ids])
        assert np.array_equal(batch["label"], on.arrays["label"][ids])
        assert batch["mask"].tolist() == [1.0] * 8

    @pytest.mark.parametrize(("step", "seed"), [(-1, 0), (0, -1)])
    def test_negative_numbers_are_errors(self, npz, step, seed):
        with pytest.raises(UserError, match=">= 0"):
            next(fakes.load("npz", path=npz, batch_size=8).train(step, seed))


class TestEvals:
    @pytest.mark.parametrize("batch_size", [1, 5, 13, 64])
    def test_each_example_once_in_order(self, npz, batch_size):
        source = fakes.load("npz", path=npz, batch_size=4, eval_batch_size=batch_size)
        batches = list(source.evals["test"]())
        assert len(batches) == -(-13 // batch_size)
        for batch in batches:
            assert batch["image"].shape == (batch_size, 6, 5, 3)
            assert batch["image"].dtype == np.uint8
            assert (batch["label"].dtype, batch["id"].dtype) == (np.int32, np.int32)
            assert batch["mask"].dtype == np.float32
        real = np.concatenate([b["mask"] for b in batches]) > 0
        image = np.concatenate([b["image"] for b in batches])[real]
        assert np.array_equal(image, fakes.arrays()["x_test"])
        assert np.concatenate([b["id"] for b in batches])[real].tolist() == list(range(13))

    def test_no_validation_split_at_zero(self, npz):
        source = fakes.load("npz", path=npz, batch_size=4, validation=0)
        assert set(source.evals) == set(source.size) == {"train", "test"}
        assert source.size["train"] == 40


class TestSpec:
    def test_moments_are_those_of_the_training_split(self, npz):
        source = fakes.load("npz", path=npz, batch_size=4)
        assert source.arrays is not None
        pixels = (source.arrays["image"].astype(np.float64) / 255).reshape(-1, 3)
        assert np.allclose(source.spec.mean, stats.describe(pixels).mean, rtol=1e-12)
        assert np.allclose(source.spec.std, stats.tstd(pixels, ddof=0), rtol=1e-12)

    def test_moments_do_not_depend_on_chunks(self, monkeypatch):
        image = fakes.arrays()["x_train"]
        expected = channel_moments(image, 255.0)
        monkeypatch.setattr("kdjax.data.images.in_memory._CHUNK", 7)
        assert np.allclose(channel_moments(image, 255.0), expected, rtol=1e-12)

    def test_constant_channel_normalises_to_zero(self):
        mean, std = channel_moments(np.full((3, 2, 2, 1), 9, np.uint8), 1.0)
        assert (mean, std) == ((9.0,), (1.0,))

    def test_digits(self):
        spec = fakes.load("digits", batch_size=4).spec
        assert (spec.shape, spec.num_classes, spec.scale) == ((8, 8, 1), 10, 16.0)
        assert spec.class_names == tuple("0123456789")


class TestSynthetic:
    def test_any_spec(self):
        source = fakes.load("synthetic", batch_size=8, shape=(5, 7, 3), num_classes=17)
        assert (source.spec.shape, source.spec.num_classes) == ((5, 7, 3), 17)
        assert source.arrays is not None
        assert set(source.arrays["label"]) == set(range(17))

    def test_nearest_class_mean_classifies_it(self):
        source = fakes.load("synthetic", batch_size=8)
        assert source.arrays is not None
        image, label = source.arrays["image"] / 255, source.arrays["label"]
        means = np.stack([image[label == c].mean(0) for c in range(10)])
        (test,) = source.evals["test"]()
        distance = ((test["image"][:, None] / 255 - means) ** 2).sum((2, 3, 4))
        assert (distance.argmin(1) == test["label"]).mean() > 0.9

    @pytest.mark.parametrize("bad", [{"shape": (8, 8)}, {"num_classes": 1}])
    def test_errors(self, bad):
        with pytest.raises(UserError, match=r"^data\."):
            fakes.load("synthetic", batch_size=8, **bad)


def test_debians_fashion_mnist():
    path = Path("/usr/share/datasets/fashion-mnist")
    if not path.exists():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    source = fakes.load("idx", path=str(path), batch_size=32)
    assert source.size == {"train": 54000, "validation": 6000, "test": 10000}
    assert source.spec.mean[0] == pytest.approx(
        0.286, abs=0.002
    )  # the published mean of all 60,000


@pytest.mark.parametrize(
    ("file", "shape", "classes"),
    [
        ("cifar10_jpeg_5k.npz", (32, 32, 3), 10),
        ("mnist_5k.npz", (28, 28, 1), 10),
        ("tiny_imagenet100_32px_3k.npz", (32, 32, 3), 100),
    ],
)
def test_real_npz(file, shape, classes):
    path = fakes.SHARED / file
    if not path.exists():
        pytest.skip(f"{file} is not beside this checkout")
    source = fakes.load("npz", path=str(path), batch_size=32)
    assert (source.spec.shape, source.spec.num_classes) == (shape, classes)
    assert source.size["test"] == 1000
    assert all(0.1 < value < 0.55 for value in (*source.spec.mean, *source.spec.std))
