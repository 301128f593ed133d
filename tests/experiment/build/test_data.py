"""Test splits of other data in place of a run's own."""

import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build import data
from kdjax.experiment.config import resolve
from tests.data import tiny_coco, tiny_text


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


def test_data_of_other_classes_or_shapes_are_refused():
    own = load(name="synthetic", num_classes=3, shape=(4, 4, 1))
    with pytest.raises(UserError, match=r"has shape \(4, 5, 1\), but the run has \(4, 4, 1\)"):
        data.with_test_splits(own, load(name="synthetic", num_classes=3, shape=(4, 5, 1)))
    with pytest.raises(UserError, match="has num_classes 2, but the run has 3"):
        data.with_test_splits(own, load(name="synthetic", num_classes=2, shape=(4, 4, 1)))
