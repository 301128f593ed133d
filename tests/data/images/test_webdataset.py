"""WebDataset's .tar shards: order, restart, labels, and what is refused."""

import json

import numpy as np
import pytest

from kdjax import data
from kdjax.errors import UserError
from tests.data import fakes, tiny_tables


def load(path, **keys):
    return fakes.load("webdataset", path=str(path), batch_size=4, **keys)


def write(root, **keys):
    for number in (0, 1):
        samples = tiny_tables.samples(10, start=10 * number, **keys)
        tiny_tables.write_shard(root / "train" / str(number) / "0.tar", samples)
    tiny_tables.write_shard(root / "test-000000.tar", tiny_tables.samples(5, **keys))


def test_shards_are_streamed_in_the_order_of_seed_and_step(tmp_path):
    write(tmp_path)
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n")
    memory, streamed = (load(tmp_path, validation=2, on_device=on) for on in (True, False))
    assert memory.size == streamed.size == {"train": 18, "validation": 2, "test": 5}
    assert streamed.spec.class_names == tiny_tables.NAMES
    batches = streamed.train(0, 1)
    following = [next(batches) for _ in range(6)]
    batches.close()
    for step in (0, 5):  # the second lies in the next epoch
        ids = next(memory.train(step, 1))["id"]
        np.testing.assert_array_equal(following[step]["image"], memory.arrays["image"][ids])
        np.testing.assert_array_equal(following[step]["label"], memory.arrays["label"][ids])
        restarted = streamed.train(step, 1)
        np.testing.assert_array_equal(next(restarted)["image"], following[step]["image"])
        restarted.close()


@pytest.mark.parametrize("name", ["", "kind"])
def test_labels_in_json(tmp_path, name):
    def label(row):
        stored = {name or "label": tiny_tables.NAMES[row % 3], "other": 1}
        return {"json": json.dumps(stored).encode()}

    write(tmp_path, label=label)
    source = load(tmp_path, columns=data.Columns(label=name))
    assert source.spec.class_names == tiny_tables.NAMES
    np.testing.assert_array_equal(next(source.evals["test"]())["label"][:5], [0, 1, 2, 0, 1])


def test_changed_labels_change_the_digest(tmp_path):
    write(tmp_path)
    before = load(tmp_path, on_device=False).digest
    write(tmp_path, label=lambda row: {"cls": str((row + 1) % 3).encode()})
    assert load(tmp_path, on_device=False).digest != before


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"png": b"", "txt": b"a cat"}, "sample x has no label; it has png, txt; give KEY.cls"),
        ({"png": b"", "json": b'{"a": 1}'}, r"no label; it has png, json, whose \.json has a"),
        ({"cls": b"1"}, "sample x has no picture; it has cls"),
        ({"png": b"no picture", "cls": b"1"}, "sample x is not a readable picture"),
        ({"png": b"", "cls": b""}, "the label of row 20 is ''"),
    ],
)
def test_wrong_samples_are_refused(tmp_path, members, match):
    write(tmp_path)
    tiny_tables.write_shard(tmp_path / "train-9.tar", [("x", members)])
    with pytest.raises(UserError, match=match):
        load(tmp_path)


def test_unreadable_pictures_are_skipped(tmp_path):
    write(tmp_path)
    damaged = [("x", {"png": b"no picture", "cls": b"1"})]
    tiny_tables.write_shard(tmp_path / "train-9.tar", damaged)
    with pytest.raises(UserError, match="sample x is not a readable picture"):
        load(tmp_path, on_device=False, validation=2).verify()
    with pytest.warns(UserWarning, match="1 unreadable pictures were skipped: .*sample x"):
        assert load(tmp_path, validation=2, unreadable="skip").size["train"] == 18


def test_classes_of_another_split_are_refused(tmp_path):
    write(tmp_path)
    tiny_tables.write_shard(
        tmp_path / "test-1.tar", tiny_tables.samples(2, label=lambda row: {"cls": b"7"})
    )
    with pytest.raises(UserError, match="test has the class 7, but the classes are 0, 1, 2"):
        load(tmp_path)


def test_damaged_shards_are_refused(tmp_path):
    write(tmp_path)
    file = tmp_path / "test-000000.tar"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(UserError, match=r"test-000000\.tar"):
        load(tmp_path)
    file.write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"is no uncompressed \.tar"):
        load(tmp_path)
