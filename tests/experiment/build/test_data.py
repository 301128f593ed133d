"""Test splits of other data in place of a run's own."""

import numpy as np
import pytest

from kdjax.data import save_tokenizer
from kdjax.errors import UserError
from kdjax.experiment.build import data
from kdjax.experiment.build.build import build, with_test_data
from kdjax.experiment.build.pixel_range import normalised
from kdjax.experiment.config import resolve
from kdjax.experiment.config.schema import Data
from kdjax.types import Spec
from tests.data import tiny_coco, tiny_language, tiny_text


def load(**table):
    return data.load(resolve.from_dict({"batch_size": 2, "eval_batch_size": 2, "data": table}))


def test_pictures_with_boxes(tmp_path):
    sizes = ({"train": 6, "val": 3}, {"train": 4, "val": 5})
    paths = [tiny_coco.write(tmp_path / str(n), size) for n, size in enumerate(sizes)]
    own, other = (load(name="coco", path=str(p), image_size=32, validation=1) for p in paths)
    both = data.with_test_splits(own, other)
    assert (both.source.size["validation"], both.source.size["test"]) == (1, 5)
    assert len(both.dataset.photos["test"]) == 5
    assert both.dataset.photos["validation"] == own.dataset.photos["validation"]
    batches = list(both.source.evals["test"]())
    assert sum(float(batch["mask"].sum()) for batch in batches) == 5
    picture = both.dataset.open(both.dataset.photos["test"][0])
    np.testing.assert_array_equal(picture, other.dataset.open(other.dataset.photos["test"][0]))


def test_texts(tmp_path):
    table = {"name": "text", "max_length": 24, "lengths": (), "too_long": "truncate"}
    table |= {"task": "glue/mrpc", "vocabulary_size": 90, "validation": 0.2}
    own = load(**table, path=str(tiny_text.write(tmp_path / "own", "glue/mrpc")))
    both = data.with_test_splits(own, own)
    assert set(both.dataset.groups) == set(own.dataset.groups)
    assert both.source.size == own.source.size


def test_language_models(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = str(tiny_language.write(tmp_path / "own"))
    table = {"name": "lm", "max_length": 48, "packing": "pad", "bpe_size": 280}
    table |= {"validation": 2, "test": 4, "second_bpe_size": 290}
    own = load(**table, path=path)
    for number, each in enumerate((own.dataset, own.dataset.second)):
        save_tokenizer(each.tokenizer, tmp_path / str(number))
    tokenizers = {"tokenizer": str(tmp_path / "0"), "second_tokenizer": str(tmp_path / "1")}
    table = {k: v for k, v in table.items() if "bpe" not in k} | tokenizers
    other = load(**table | {"test": 9}, path=path)
    both = data.with_test_splits(own, other)
    for ours, others, mine in zip(
        *((x.dataset, x.dataset.second) for x in (both, other, own)), strict=True
    ):
        assert ours.num_bytes == {**mine.num_bytes, "test": others.num_bytes["test"]}
        assert ours.source.size["test"] == 9
        first, second = (next(iter(x.source.evals["test"]())) for x in (ours, others))
        np.testing.assert_array_equal(first["input_ids"], second["input_ids"])
    assert both.dataset.num_bytes["test"] > own.dataset.num_bytes["test"]


@pytest.mark.parametrize("kind", ["lm", "text"])
def test_other_texts_are_read_by_the_tokenizer_of_the_workdir(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = {"name": "llama" if kind == "lm" else "bert", "num_layers": 1, "width": 8}
    config = {"batch_size": 2, "eval_batch_size": 2, "num_steps": 1, "devices": 1, "roles": {
        "student": {"model": {**network, "num_heads": 2}, "terms": {"ce": {}}}}}  # fmt: skip
    if kind == "lm":
        (tmp_path / "other.jsonl").write_text('{"text": "words that the run does not have"}\n' * 9)
        table = {"name": "lm", "max_length": 24, "bpe_size": 300, "validation": 2, "test": 2}
        table |= {"path": str(tiny_language.write(tmp_path))}
    else:
        (tmp_path / "other.csv").write_text("text,label\n" + "a new word,0\nhere,1\n" * 30)
        (tmp_path / "own.csv").write_text("text,label\n" + "good films,0\nbad,1\n" * 20)
        table = {"name": "text", "vocabulary_size": 60, "max_length": 16}
        table |= {"path": str(tmp_path / "own.csv")}
    experiment = build({**config, "data": table})
    other = {**table, "path": str(tmp_path / ("other.jsonl" if kind == "lm" else "other.csv"))}
    with pytest.raises(UserError, match="but the run has"):
        with_test_data(experiment, {**config, "data": other}, tmp_path / "none")
    (tmp_path / "run").mkdir()
    experiment.task.save_files(experiment.data.dataset, tmp_path / "run")
    both = with_test_data(experiment, {**config, "data": other}, tmp_path / "run")
    assert both.source.spec == experiment.source.spec
    assert both.source.size["test"] != experiment.source.size["test"]


def test_data_of_other_classes_or_shapes_are_refused():
    own = load(name="synthetic", num_classes=3, shape=(4, 4, 1))
    with pytest.raises(UserError, match=r"has shape \(4, 5, 1\), but the run has \(4, 4, 1\)"):
        data.with_test_splits(own, load(name="synthetic", num_classes=3, shape=(4, 5, 1)))
    with pytest.raises(UserError, match="has num_classes 2, but the run has 3"):
        data.with_test_splits(own, load(name="synthetic", num_classes=2, shape=(4, 4, 1)))


def test_data_in_another_range_are_refused():
    own, other = (load(name="synthetic", num_classes=3, shape=(4, 4, 1)) for _ in range(2))
    spec = own.source.spec
    wide = spec._replace(mean=(255 * spec.mean[0],), std=(255 * spec.std[0],))
    other = other._replace(source=other.source._replace(spec=wide))
    with pytest.raises(UserError, match=r"but those of the run .*; store both in the same range"):
        data.with_test_splits(own, other)


def test_a_mean_in_another_range_is_refused():
    floats = Spec((4, 4, 1), 3, ("a", "b", "c"), (0.4,), (0.2,), 1.0)
    with pytest.raises(UserError, match=r"mean is \(127.5,\), far from the mean of the training"):
        normalised(floats, Data(mean=(127.5,)))
    assert normalised(floats, Data(mean=(0.0,))).mean == (0.0,)
    with pytest.raises(UserError, match=r"mean is \(4.88,\); pixels are divided by 16 first"):
        load(name="digits", mean=(4.88,))


def test_arrays_are_not_cropped_and_an_export_states_no_crop():
    keys = {"name": "synthetic", "num_classes": 3, "shape": (8, 8, 1), "image_size": 8}
    with pytest.raises(UserError, match=r"data.eval_crop is 0.5 but synthetic holds arrays"):
        load(**keys, eval_crop=0.5)
    config = resolve.from_dict({"data": {**keys, "augment": "resized_crop_flip"}})
    assert data.eval_crop(config) is None
