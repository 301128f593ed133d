"""Streaming through grain: exact restart, workers, and tfds' mock end to end."""

import itertools
import multiprocessing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax.data import BatchOptions, SplitOptions
from kdjax.data.images import streaming
from kdjax.data.images.decode import View
from kdjax.data.images.tfds import from_builder
from kdjax.errors import RunError, UserError
from tests.data import fakes

OFF = BatchOptions(6, 4, on_device=False)
SPLITS = SplitOptions(validation=5)


def take(batches, count):
    result = [next(batches) for _ in range(count)]
    batches.close()
    return result


def same(left, right):
    return set(left) == set(right) and all(np.array_equal(left[k], right[k]) for k in left)


class TestStream:
    def test_batches(self):
        source = streaming.build(fakes.records(), OFF, SPLITS)
        assert source.arrays is None
        assert source.size == {"train": 45, "validation": 5, "test": 7}
        walked = take(source.train(0, 3), 16)
        for batch in walked:
            assert batch["image"].dtype == np.uint8
            assert batch["image"].shape == (6, 4, 4, 3)
            assert np.array_equal(batch["image"][:, 0, 0, 0] % 3, batch["label"])
            assert (batch["label"].dtype, batch["id"].dtype) == (np.int32, np.int32)
            assert batch["mask"].tolist() == [1.0] * 6
        for epoch in (walked[:7], walked[7:14]):
            assert len(set(np.concatenate([b["id"] for b in epoch]).tolist())) == 42

    def test_restarts_exactly_at_any_step(self):
        source = streaming.build(fakes.records(), OFF, SPLITS)
        walked = take(source.train(0, 3), 16)
        for step in (1, 6, 7, 15):
            assert same(take(source.train(step, 3), 1)[0], walked[step])
        assert not same(take(source.train(0, 4), 1)[0], walked[0])

    def test_worker_processes_change_nothing(self):
        alone, helped = (
            streaming.build(fakes.records(), replace(OFF, workers=workers), SPLITS)
            for workers in (0, 2)
        )
        for left, right in zip(
            take(alone.train(5, 3), 4), take(helped.train(5, 3), 4), strict=True
        ):
            assert same(left, right)

    def test_a_worker_reports_a_user_error(self):
        fetch = partial(fakes.fail_from, 13)
        with pytest.raises(UserError, match="example 13 is bad"):
            list(streaming.stream_batches(fetch, (0, 24), 6, workers=1, threads=2))

    def test_a_dead_worker_is_reported(self):
        batches = streaming.build(fakes.records(), replace(OFF, workers=1), SPLITS).train(0, 3)
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(RunError, match=r"exit code -9.*lower data\.workers, and the same comm"):
            list(itertools.islice(batches, 10_000))  # batches prepared before are still delivered

    def test_evals_cover_each_split_once(self):
        source = streaming.build(fakes.records(), OFF, SPLITS)
        seen = []
        for split in ("train", "validation"):
            for batch in source.evals[split]():
                assert len(batch["mask"]) == 4
                seen += batch["image"][batch["mask"] > 0][:, 0, 0, 0].tolist()
        assert sorted(seen) == list(range(50))
        assert sum(b["mask"].sum() for b in source.evals["test"]()) == 7

    def test_worker_processes_evaluate_the_same(self):
        alone, helped = (
            streaming.build(fakes.records(), replace(OFF, workers=workers), SPLITS)
            for workers in (0, 2)
        )
        pairs = list(zip(alone.evals["train"](), helped.evals["train"](), strict=True))
        assert len(pairs) == 12
        assert all(same(left, right) for left, right in pairs)

    def test_unlabelled_records_are_split_at_random(self):
        source = streaming.build(fakes.records(labelled=False), OFF, SPLITS)
        assert source.size["validation"] == 5

    def test_an_error_for_a_bad_label_names_the_example(self):
        with pytest.raises(UserError, match=r"fake: example 7 has label 3, out of range \[0, 3\)"):
            streaming.build(fakes.records(get=fakes.label_out_of_range), OFF, SPLITS)

    @pytest.mark.parametrize("on_device", [True, "auto"])
    def test_small_sets_move_into_memory(self, on_device):
        source = streaming.build(fakes.records(), replace(OFF, on_device=on_device), SPLITS)
        assert source.arrays is not None
        off = streaming.build(fakes.records(), OFF, SPLITS)
        assert np.array_equal(next(source.train(9, 1))["id"], take(off.train(9, 1), 1)[0]["id"])

    def test_auto_streams_what_is_too_large(self, monkeypatch):
        monkeypatch.setattr("kdjax.data.images.in_memory.ON_DEVICE_LIMIT", 50 * 48 - 1)
        assert (
            streaming.build(fakes.records(), replace(OFF, on_device="auto"), SPLITS).arrays is None
        )


class TestTfds:
    @pytest.mark.parametrize("on_device", [True, False])
    def test_mocked_cifar10_end_to_end(self, tmp_path, on_device):
        with tfds.testing.mock_data(num_examples=30):
            source = fakes.load(
                "cifar10", path=str(tmp_path), batch_size=8, validation=6, on_device=on_device
            )
            assert source.size == {"train": 24, "validation": 6, "test": 30}
            assert source.spec.shape == (32, 32, 3)
            assert source.spec.num_classes == 10
            batches = source.train(2, 0)
            batch = next(batches)
            assert set(batch) == ({"id"} if on_device else {"image", "label", "id", "mask"})
            batches.close()
            (test_batch,) = source.evals["test"]()
            assert test_batch["image"].dtype == np.uint8
            assert test_batch["mask"].sum() == 30

    def test_mocked_imagenet_needs_a_size(self, tmp_path):
        with tfds.testing.mock_data(num_examples=12):
            with pytest.raises(UserError, match=r"several sizes; set data\.image_size"):
                fakes.load("imagenet2012", path=str(tmp_path), batch_size=4)
            source = fakes.load("imagenet2012", path=str(tmp_path), batch_size=4, image_size=16)
        assert source.spec.shape == (16, 16, 3)
        assert source.spec.num_classes == 1000

    @pytest.mark.parametrize("name", ["cifar10", "imagenet_resized/64x64", "imagenet2012"])
    def test_missing_files_are_an_error(self, tmp_path, name):
        with pytest.raises(UserError) as caught:
            fakes.load(name, path=str(tmp_path), batch_size=4, image_size=64)
        message = str(caught.value)
        assert "\n" not in message
        assert f"is not in data.path={tmp_path}" in message
        assert f"tfds build {name} --data_dir={tmp_path} --file_format=array_record" in message

    def test_an_unknown_name_is_an_error(self):
        with pytest.raises(UserError, match=r"did you mean cifar10\?.*digits, npz") as caught:
            fakes.load("cifar_10", batch_size=4)
        assert "\n" not in str(caught.value)

    def test_an_unknown_config_is_an_error(self, tmp_path):
        with pytest.raises(UserError, match=r"imagenet_resized/7x7.*64x64") as caught:
            fakes.load("imagenet_resized/7x7", path=str(tmp_path), batch_size=4)
        assert "\n" not in str(caught.value)

    def test_deeper_pixels_are_refused(self):
        features = {"image": tfds.features.Image(shape=(2, 2, 1), dtype=np.uint16)}
        features["label"] = tfds.features.ClassLabel(num_classes=2)
        info = SimpleNamespace(
            supervised_keys=None, features=tfds.features.FeaturesDict(features), splits={}
        )
        with pytest.raises(UserError, match=r"data\.name=deep holds uint16 pixels; only uint8"):
            from_builder(SimpleNamespace(info=info), "deep", None, View())

    def test_not_a_classification_set(self, tmp_path):
        with pytest.raises(UserError, match="no image and class label"):
            fakes.load("ag_news_subset", path=str(tmp_path), batch_size=4)
