"""An experiment whose evaluation has the test images under corruptions as further splits."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data import CORRUPTIONS, corrupt
from kdjax.errors import UserError
from kdjax.experiment.build.plan import Experiment
from kdjax.report.statistics import CORRUPTED
from kdjax.types import Batch, EvalBatches, Source

_ENTRY = "corruption"


def with_corruptions(experiment: Experiment) -> Experiment:
    """Add a test split for each kind and level; the corrupted pixels are computed in the program.

    Raises:
      UserError: the data are no images with one label each, or pixels outside or far within the
        range.
    """
    spec, source = experiment.source.spec, experiment.source
    if not experiment.task.takes_corruptions or len(spec.shape) != 3:
        raise UserError(
            "--corruptions needs images with one label each; this workdir has other data"
        )
    # bytes cannot lie outside, so that a few batches tell enough
    _check_range(source.evals["test"], spec.scale, 8 if spec.scale == 255 else None)
    key = jax.random.key(0)

    def prepare_eval(batch: Batch) -> Batch:
        batch = dict(batch)
        codes = batch.pop(_ENTRY, None)
        if codes is not None:
            pixels = jnp.asarray(batch["image"], jnp.float32) / spec.scale
            batch["image"] = corrupt(pixels, codes[0], batch["id"], key) * spec.scale
        return experiment.prepare_eval(batch)

    data = experiment.data._replace(source=_with_splits(source))
    return experiment._replace(data=data, prepare_eval=prepare_eval)


def _check_range(batches: EvalBatches, scale: float, count: int | None) -> None:
    """Refuse images outside [0, scale], or in a small part of it: corruptions are of its size."""
    ends = [(batch["image"].min(), batch["image"].max()) for batch in islice(batches(), count)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if low < 0 or not scale / 2 <= high <= scale:
        raise UserError(
            f"--corruptions needs images of 0 to {scale:g}; the test images have {low:.4g} to "
            f"{high:.4g}"
        )


def _with_splits(source: Source) -> Source:
    """Add the corrupted splits to a source, and to the blocks of its rows."""
    rows = source.rows
    splits = {
        f"{CORRUPTED}{name}": partial(_coded, source.evals["test"], code)
        for name, code in CORRUPTIONS.items()
    }
    return source._replace(
        evals={**source.evals, **splits},
        rows=None if rows is None else lambda index, count: _with_splits(rows(index, count)),
    )


def _coded(batches: EvalBatches, code: int) -> Iterator[Mapping[str, Any]]:
    for batch in batches():
        # one entry for each example, because layouts divide all entries over devices
        yield {**batch, _ENTRY: np.full(len(batch["label"]), code, np.int32)}
