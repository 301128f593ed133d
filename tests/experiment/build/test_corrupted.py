"""The corrupted splits of a source that is divided over processes."""

import numpy as np
import pytest

from kdjax import data
from kdjax.errors import UserError
from kdjax.evaluation import TASKS
from kdjax.experiment.build.corrupted import with_corruptions
from kdjax.experiment.build.plan import Experiment, TaskData
from kdjax.types import Source, Spec

SPEC = Spec((2, 2, 1), 2, ("a", "b"), (0.0,), (1.0,), 1.0)


def streamed(examples):
    """Return a source that reads only the rows of a block."""

    def test():
        yield {"image": np.ones((len(examples), 2, 2, 1)), "label": np.array(examples)}

    return Source(
        spec=SPEC,
        size={"test": len(examples)},
        train=lambda step, seed: iter(()),
        evals={"test": test},
        rows=lambda index, count: streamed(np.split(np.array(examples), count)[index]),
    )


def test_each_process_has_its_rows_of_the_corrupted_splits():
    parts = TaskData(streamed([4, 5, 6, 7]), TASKS["classification"])
    experiment = Experiment(**{**dict.fromkeys(Experiment._fields), "data": parts})
    corrupted = with_corruptions(experiment).source
    block = data.shard_source(corrupted, 1, 2)
    assert set(block.evals) == set(corrupted.evals) > {"test"}
    (batch,) = block.evals["test_corrupted_blur_1"]()
    assert batch["label"].tolist() == [6, 7]
    assert set(batch["corruption"]) == {data.CORRUPTIONS["blur_1"]}


def test_floats_outside_0_to_1_are_refused():
    source = streamed([4, 5])
    batch = {"image": np.full((2, 2, 2, 1), 200.0), "label": np.zeros(2)}
    parts = TaskData(
        source._replace(evals={"test": lambda: iter([batch])}), TASKS["classification"]
    )
    experiment = Experiment(**{**dict.fromkeys(Experiment._fields), "data": parts})
    sixteenth = parts.source._replace(spec=parts.source.spec._replace(scale=200.0))
    scaled = experiment._replace(data=parts._replace(source=sixteenth))
    assert len(with_corruptions(scaled).source.evals) > 1
    with pytest.raises(UserError, match="images of 0 to 1; the test images have 200 to 200"):
        with_corruptions(experiment)
    small = parts.source._replace(spec=parts.source.spec._replace(scale=1000.0))
    scaled = experiment._replace(data=parts._replace(source=small))
    with pytest.raises(UserError, match="images of 0 to 1000; the test images have 200 to 200"):
        with_corruptions(scaled)
