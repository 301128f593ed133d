"""What a frozen network is given before training: cached outputs, class means."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.data import example_batch
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.class_means import class_means, kept
from kdjax.train import multihost
from kdjax.types import Batch, Model, Source, Variables


def attach_frozen_extras(
    run: Experiment, variant: Variant, role: str, variables: Variables, folder: Path
) -> Variables:
    """Attach to a frozen network what the terms that look at it ask for.

    Args:
      run: for the data.
      variant: whose terms.
      role: of the network.
      variables: plain, not stacked.
      folder: of the run; class means are kept there.
    """
    equipped, said = variables, variant.config["data"]
    if role in variant.cached:
        model, layers = variant.cached[role]
        found = outputs(model, variables, run.source, run.prepare_eval, layers)
        equipped = models.attach_cache(equipped, found)
    if role in variant.class_means:
        model, layer = variant.class_means[role]
        about = {"data": said, "sizes": dict(run.source.size), "layer": layer}
        options = {"augment": said["augment"], "seed": said["split_seed"]}
        options["absent_classes"] = not run.task.rows_are_examples
        compute = lambda: class_means(model, variables, run.source, layer=layer, **options)  # noqa: E731
        shape = (run.source.spec.num_classes, _width(run, model, variables, layer))
        find = lambda: kept(folder, variables, about, compute, shape)  # noqa: E731
        means = multihost.first_then_all(find)
        equipped = models.attach_class_means(equipped, jnp.asarray(means))
    return equipped


def _width(run: Experiment, model: Model, variables: Variables, layer: str) -> int:
    batch = example_batch(run.source)
    apply = lambda v: model.apply(v, run.prepare_eval(batch), train=False)[0]  # noqa: E731
    return jax.eval_shape(apply, variables).features[layer].shape[-1]


def outputs(
    model: Model,
    variables: Variables,
    source: Source,
    prepare: Callable[[Batch], Batch],
    layers: Sequence[str] = (),
) -> Mapping[str, jax.Array]:
    """Logits and features of every training example, in the order of its "id".

    Returns:
      {"logits": [examples, classes], layer: [examples, ...]}.
    """

    @jax.jit
    def forward(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        found, _ = model.apply(variables, prepare(batch), train=False)
        return {"logits": found.logits, **{name: found.features[name] for name in layers}}

    rows: dict[str, np.ndarray] = {}
    for batch in source.evals["train"]():
        real = np.asarray(batch["mask"]) > 0
        ids = np.asarray(batch["id"])[real]
        for name, values in jax.device_get(forward(variables, dict(batch))).items():
            shape = (source.size["train"], *values.shape[1:])
            rows.setdefault(name, np.zeros(shape, values.dtype))[ids] = values[real]
    return {name: jnp.asarray(values) for name, values in rows.items()}
