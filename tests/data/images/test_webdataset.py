"""WebDataset's .tar shards: order, restart, labels, and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest

from kdjax import data
from kdjax.data.images import shards
from kdjax.errors import RunError, UserError
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
    keys = {"on_device": False, "validation": 2, "unreadable": "skip"}
    with pytest.warns(UserWarning, match="1 unreadable"):
        before = load(tmp_path, **keys).digest
    repaired = [("x", {"png": tiny_tables.picture(1), "cls": b"1"})]
    tiny_tables.write_shard(tmp_path / "train-9.tar", repaired)
    assert load(tmp_path, **keys).digest["train readable"] != before["train readable"]


def test_classes_of_another_split_are_refused(tmp_path):
    write(tmp_path)
    tiny_tables.write_shard(
        tmp_path / "test-1.tar", tiny_tables.samples(2, label=lambda row: {"cls": b"7"})
    )
    with pytest.raises(UserError, match="test has the class 7, but the classes are 0, 1, 2"):
        load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    {
        "a flipped byte of a header": lambda raw: raw[:3077] + bytes([raw[3077] ^ 1]) + raw[3078:],
        "a lost block": lambda raw: raw[:3072] + bytes(512) + raw[3584:],
        "cut at a boundary": lambda raw: raw[:3072],
        "cut in a header": lambda raw: raw[:3172],
        "two archives": lambda raw: raw + raw,
    }.items(),
    ids=lambda item: item[0],
)
def test_no_sample_behind_damage_is_lost_silently(tmp_path, damage):
    write(tmp_path)
    file = tmp_path / "test-000000.tar"
    raw = file.read_bytes()
    assert b"0001.cls" in raw[3072:3584]  # a header
    file.write_bytes(damage[1](raw))
    with pytest.raises(
        UserError, match=r"test-000000\.tar is truncated or damaged behind sample 00"
    ):
        load(tmp_path)


def test_a_shard_that_changes_during_a_run_ends_it(tmp_path):
    write(tmp_path)
    source = load(tmp_path, on_device=False)
    other = tmp_path / "other"
    tiny_tables.write_shard(other, tiny_tables.samples(10, start=100))
    other.replace(tmp_path / "train" / "0" / "0.tar")
    shards._open.cache_clear()  # as in a worker process
    with pytest.raises(RunError, match=r"0\.tar was changed or removed since this process began"):
        next(source.train(0, 1))
    fresh = load(tmp_path, on_device=False)
    assert fresh.digest != source.digest
    next(fresh.train(0, 1))


def test_damaged_shards_are_refused(tmp_path):
    write(tmp_path)
    file = tmp_path / "test-000000.tar"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(UserError, match=r"test-000000\.tar"):
        load(tmp_path)
    file.write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"is no uncompressed \.tar"):
        load(tmp_path)


@pytest.fixture
def in_bucket(tmp_path, service, request, monkeypatch):
    """Return a local set and the address of the same set in a bucket; the user's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "set"
    write(root)
    (root / "classnames.txt").write_text("ant\nbee\ncat\n")
    bucket = f"shards-{abs(hash(request.node.name))}"
    address = service.create(bucket) + "/data/set"
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        service.write(bucket, f"data/set/{file.relative_to(root).as_posix()}", file.read_bytes())
    return root, address


def assert_same_batches(left, right, steps=6):
    assert left.size == right.size
    assert left.digest == right.digest
    assert left.spec == right.spec
    streams = left.train(0, 1), right.train(0, 1)
    for _ in range(steps):
        ours, others = map(next, streams)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, others[name])
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_shards_in_a_bucket_are_streamed_and_indexed_once(in_bucket, service, workers):
    root, address = in_bucket
    keys = {"validation": 2, "on_device": False, "workers": workers}
    load(address, **keys)
    service.paths.clear()
    streamed = load(address, **keys)
    reads = sum(path.endswith(".tar") for path in service.paths)
    assert reads == 18 + 3 + 1  # the mean, the channels of each class, the shape; no header
    assert_same_batches(load(root, **keys), streamed)
    one = load(f"{address}/train/0/0.tar", test=2, validation=2)
    assert one.size == {"train": 6, "validation": 2, "test": 2}


def test_a_changed_shard_in_a_bucket_is_indexed_again(in_bucket, service, tmp_path):
    root, address = in_bucket
    load(address, on_device=False)
    tiny_tables.write_shard(root / "test-000000.tar", tiny_tables.samples(4))
    bucket = address.split("/")[2]
    source = load(address, on_device=False)
    service.write(bucket, "data/set/test-000000.tar", (root / "test-000000.tar").read_bytes())
    with pytest.raises(RunError, match=r"gs://.*test-000000\.tar was changed or removed"):
        next(source.evals["test"]())
    assert load(address, on_device=False).size["test"] == 4


def test_hidden_shards_and_their_order_are_those_of_a_disk(in_bucket, service):
    root, address = in_bucket
    for name in ("train/.hidden/0.tar", "train/1-a/0.tar", "train/1/b.tar"):
        tiny_tables.write_shard(root / name, tiny_tables.samples(3, start=30))
        service.write(address.split("/")[2], f"data/set/{name}", (root / name).read_bytes())
    local, streamed = (load(each, on_device=False, validation=2) for each in (root, address))
    assert local.size["train"] == 24
    assert_same_batches(local, streamed, steps=2)


def test_a_bucket_that_cannot_be_read_ends_the_run(in_bucket, service):
    _, address = in_bucket
    source = load(address, on_device=False, unreadable="skip")
    with service.failing(lambda method, path: 403 if ".tar" in path else None):
        with pytest.raises(RunError, match=r"gs://.*\.tar cannot be read .* run the same command"):
            next(source.train(0, 1))
        with pytest.raises(RunError, match="cannot be read"):  # nothing is skipped
            load(address, on_device=False, unreadable="skip")
    with pytest.raises(UserError, match=r"does not exist; give a folder of \.tar shards"):
        load(f"{address}-none")


def test_links_and_doubled_samples_are_refused(tmp_path):
    samples = tiny_tables.samples(4)
    tiny_tables.write_shard(tmp_path / "train-0.tar", [*samples, *samples[-1:]])
    with pytest.raises(UserError, match=r"holds 0003.png twice"):
        load(tmp_path)
    tiny_tables.write_shard(tmp_path / "train-0.tar", samples)
    with tarfile.open(tmp_path / "train-0.tar", "a") as shard:
        link = tarfile.TarInfo("0004.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0003.png"
        shard.addfile(link, io.BytesIO())
    with pytest.raises(UserError, match=r"0004.png is a link; write the shard with tar --deref"):
        load(tmp_path)
