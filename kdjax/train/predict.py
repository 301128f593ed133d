"""Evaluation of every example once, for any padding and number of devices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from kdjax.train import multihost
from kdjax.train.parallel import Layout
from kdjax.types import Batch, Model, Outputs, PyTree, State, Variables

Predict = Callable[[State, Batch], Mapping[str, jax.Array]]


def make_predict(
    models: Mapping[str, Model],
    prepare: Callable[[Batch], Batch],
    read: Callable[[Outputs], jax.Array] = lambda outputs: outputs.logits,
) -> Predict:
    """Build `predict(state, raw batch) -> {role: logits [batch, classes]}`, in evaluation mode.

    `read` selects another output, [batch, numbers].
    """

    def predict(state: State, batch: Batch) -> dict[str, jax.Array]:
        batch = prepare(batch)
        logits = {}
        for role, model in models.items():
            variables = Variables(state.params[role], state.stats[role])
            logits[role] = read(model.apply(variables, batch, train=False)[0])
        return logits

    return predict


def collect(
    predict: Callable[[State, PyTree], PyTree],
    state: State,
    batches: Iterable[Mapping[str, Any]],
    layout: Layout,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Run a compiled `predict` over a split; this process may have only a part of each batch.

    Returns:
      Logits by role, [member?, examples, classes], and labels [examples], padding removed.
    """
    logits: dict[str, list[np.ndarray]] = {}
    labels = []
    for batch in batches:
        outputs = layout.join(predict(state, layout.put(batch)))
        rows = (np.asarray(batch["mask"]), np.asarray(batch["label"]))
        mask, label = multihost.gather_rows(rows) if layout.block[1] > 1 else rows
        real = mask > 0
        labels.append(label[real])
        for role, values in outputs.items():
            logits.setdefault(role, []).append(values[..., real, :])
    joined = {role: np.concatenate(values, axis=-2) for role, values in logits.items()}
    return joined, np.concatenate(labels)
