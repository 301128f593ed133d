"""The stacked rows of several processes equal the batches of a single process."""

import numpy as np
import pytest

from kdjax import data
from kdjax.data import BatchOptions, SplitOptions
from kdjax.data.detection import dataset as detection
from kdjax.data.images import streaming
from tests.data import fakes, tiny_coco

BATCHES, SPLITS = BatchOptions(6, 6, on_device=False), SplitOptions(validation=5)


def source(kind, folder):
    if kind == "streamed":
        return streaming.build(fakes.records(), BATCHES, SPLITS)
    sizes = {"batch_size": 6, "eval_batch_size": 6}
    if kind.startswith("boxes"):
        path = str(tiny_coco.write(folder, {"train": 19, "val": 4}))
        keys = {"path": path, "image_size": 32, "max_boxes": 2, "validation": 5}
        keys["on_device"] = kind == "boxes on the device"
        return data.read_detection(*fakes.options(data.DetectionOptions, **sizes, **keys)).source
    return fakes.load("synthetic", on_device=kind == "on the device", limit=45, **sizes)


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same(left, right):
    return set(left) == set(right) and all(np.array_equal(left[k], right[k]) for k in left)


KINDS = ["streamed", "in memory", "on the device", "boxes streamed", "boxes on the device"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_training_takes_the_same_steps(kind, count, tmp_path):
    single = source(kind, tmp_path)
    walks = [data.shard_source(single, index, count).train(5, 3) for index in range(count)]
    alone = single.train(5, 3)
    for _ in range(4):
        assert same(joined([next(walk) for walk in walks]), next(alone))
    for walk in (*walks, alone):
        walk.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_evaluation_counts_every_example_once(kind, count, tmp_path):
    single = source(kind, tmp_path)
    for split, batches in single.evals.items():
        parts = [data.shard_source(single, index, count).evals[split]() for index in range(count)]
        seen = []
        for blocks, batch in zip(zip(*parts, strict=True), batches(), strict=True):
            actual = joined(blocks)
            assert {len(block["mask"]) for block in blocks} == {6 // count}
            assert np.array_equal(actual["mask"], batch["mask"])
            real = actual["mask"] > 0
            assert same(
                {k: v[real] for k, v in actual.items()}, {k: v[real] for k, v in batch.items()}
            )
            seen += actual["id"][real].tolist()
        assert seen == list(range(single.size[split]))


def test_a_process_decodes_only_its_rows():
    rows = []
    records = fakes.records()
    get = records.train.get
    watched = records.train._replace(get=lambda row: rows.append(row) or get(row))
    built = streaming.build(records._replace(train=watched), BATCHES, SPLITS)
    rows.clear()
    list(data.shard_source(built, 1, 3).evals["train"]())
    assert len(rows) <= 45 / 3 + 1  # 45 examples, and one where the last block is empty


def test_a_process_opens_only_its_images(tmp_path, monkeypatch):
    built = source("boxes streamed", tmp_path)
    rows = []
    opened = detection.open_photo
    monkeypatch.setattr(
        detection, "open_photo", lambda path, photo: rows.append(photo.file) or opened(path, photo)
    )
    list(data.shard_source(built, 1, 3).evals["train"]())
    assert len(rows) == 3 * 2  # 14 images in batches of 6, 2 of each for this process
