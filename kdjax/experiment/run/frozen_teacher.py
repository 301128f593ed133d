"""Quantities of a frozen network that are computed before training: outputs, class means."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.data import example_batch, unpad_batch
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.class_means import MeansOptions, cached_class_means, class_means
from kdjax.report.files import Path
from kdjax.train import multihost
from kdjax.types import Batch, Model, Source, Variables


def attach_frozen_extras(
    experiment: Experiment,
    variant: Variant,
    folder: Path,
    cache: bool,
    role: str,
    variables: Variables,
) -> Variables:
    """Attach to a frozen network (not stacked) the quantities that other roles' terms read.

    Without `cache` there are no outputs of training examples.
    """
    extended = variables
    if role in variant.cached:
        model, layers = variant.cached[role]
        prepare = experiment.prepare_eval
        outputs = {}
        if cache:
            outputs = compute_outputs(model, variables, experiment.source, prepare, layers)
        extended = models.attach_cache(extended, outputs)
    if role in variant.class_means:
        means = multihost.first_then_all(
            lambda: _class_means(experiment, variant, role, variables, folder)
        )
        extended = models.attach_class_means(extended, jnp.asarray(means))
    return extended


def _class_means(
    experiment: Experiment, variant: Variant, role: str, variables: Variables, folder: Path
) -> np.ndarray:
    model, layer = variant.class_means[role]
    source, data = experiment.source, variant.config.data

    def compute() -> np.ndarray:
        absent_classes = not experiment.task.rows_are_examples
        options = MeansOptions(layer, data.augment, data.split_seed, absent_classes)
        return class_means(model, variables, source, options)

    shape = (source.spec.num_classes, _width(experiment, model, variables, layer))
    contents = {"sizes": dict(source.size), "digest": dict(source.digest)}
    inputs = {"data": data.model_dump(), **contents, "layer": layer}
    return cached_class_means(folder, variables, inputs, compute, shape)


def _width(experiment: Experiment, model: Model, variables: Variables, layer: str) -> int:
    batch = example_batch(experiment.source)

    def features(variables: Variables) -> Mapping[str, jax.Array]:
        return model.apply(variables, experiment.prepare_eval(batch), train=False)[0].features

    return jax.eval_shape(features, variables)[layer].shape[-1]


def compute_outputs(
    model: Model,
    variables: Variables,
    source: Source,
    prepare: Callable[[Batch], Batch],
    layers: Sequence[str] = (),
) -> Mapping[str, jax.Array]:
    """Compute logits and features of every training example, in the order of its "id".

    Returns:
      {"logits": [examples, classes], layer: [examples, ...]}.
    """

    @jax.jit
    def forward(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs, _ = model.apply(variables, prepare(batch), train=False)
        return {"logits": outputs.logits, **{name: outputs.features[name] for name in layers}}

    rows: dict[str, np.ndarray] = {}
    for batch in source.evals["train"]():
        outputs = jax.device_get(forward(variables, dict(batch)))
        unpadded = unpad_batch({**outputs, "id": batch["id"], "mask": batch["mask"]})
        for name in outputs:
            values = unpadded[name]
            shape = (source.size["train"], *values.shape[1:])
            rows.setdefault(name, np.zeros(shape, values.dtype))[unpadded["id"]] = values
    return {name: jnp.asarray(values) for name, values in rows.items()}
