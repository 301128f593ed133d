"""Class means of a frozen network's features (for ND), computed before training."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import data
from kdjax.distill.methods.collectives import rows
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError, check_layer
from kdjax.report import files
from kdjax.report.files import Path
from kdjax.train import checkpoint
from kdjax.train.parallel import Layout, one_device
from kdjax.types import Batch, Model, Source, Variables

Prepare = Callable[[Batch, jax.Array], Batch]


class MeansOptions(NamedTuple):
    """The features whose class means are computed.

    `layer`: a feature [batch, width]. `augment`: as `data.augment` in a config, with `seed`.
    `absent_classes`: a class may have no examples, as in detection; its mean is 0.
    """

    layer: str = "pooled"
    augment: str = "none"
    seed: int = 0
    absent_classes: bool = False


def class_means(
    model: Model,
    variables: Variables,
    source: Source,
    options: MeansOptions = MeansOptions(),  # noqa: B008
    *,
    layout: Layout | None = None,
) -> np.ndarray:
    """Return the mean feature of each class over the training split, in evaluation mode.

    Every example is read once, augmented as in training; sums are in float64. Apart from rounding
    of the features, the result does not depend on the batch size or the number of devices.

    Args:
      model: the network.
      variables: its variables, not stacked.
      source: the data; only the training split is read.
      options: layer, augmentation and its seed.
      layout: `parallel.one_device()` (the default), `pmap_data` or `mesh_data`.

    Returns:
      [classes, width] float32.

    Raises:
      UserError: a class without examples (named), or no such layer.
    """
    layout = layout or one_device()
    prepare, key = data.prepare(source.spec, augment=options.augment), jax.random.key(options.seed)

    def features(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        ready = prepare(batch, key)
        outputs, _ = model.apply(variables, ready, train=False)
        check_layer("class means", options.layer, outputs.features)
        seen = rows(outputs, ready)  # for a detector: regions around the boxes
        values = {
            "value": outputs.features[options.layer],
            "label": seen["label"],
            "mask": seen["mask"],
        }
        return {name: x[None] for name, x in values.items()}  # layouts expect an axis of members

    compiled, placed = layout.compile_map(features), layout.place(variables)
    classes = source.spec.num_classes
    total, count = None, np.zeros(classes, np.int64)
    for batch in source.evals["train"]():
        joined = layout.join(compiled(placed, layout.put(batch)))
        unpadded = data.unpad_batch({name: x[0] for name, x in joined.items()})
        labels, rows64 = unpadded["label"], unpadded["value"].astype(np.float64)
        total = np.zeros((classes, rows64.shape[-1])) if total is None else total
        np.add.at(total, labels, rows64)
        count += np.bincount(labels, minlength=classes)
    if options.absent_classes and total is not None:
        count = np.maximum(count, 1)  # no term reads the mean of a class without boxes
    if total is None or not count.all():
        empty = [source.spec.class_names[c] for c in np.flatnonzero(count == 0)]
        raise UserError(
            f"class means: no training examples of class {', '.join(empty) or 'any'}; remove the "
            "class or lower data.validation"
        )
    return (total / count[:, None]).astype(np.float32)


def cached_class_means(
    folder: Path,
    variables: Variables,
    inputs: Mapping[str, Any],
    compute: Callable[[], np.ndarray],
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read class means from a run's folder, or compute and store them.

    Args:
      folder: the folder of the run.
      variables: the network's variables; their hash is part of the file's name.
      inputs: other inputs of the result (data, augmentation, layer), also part of the name.
      compute: called if there is no such file.
      shape: the expected shape (classes, width), if known.

    Raises:
      UserError: the file cannot be read, or has means of another shape.
    """
    key = json.dumps(inputs, sort_keys=True, default=str) + checkpoint.digest(variables)
    path = folder / "class_means" / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    file = path.with_suffix(".npz")
    if files.exists(file):
        try:
            content = io.BytesIO(files.read_bytes(file))
            with np.load(content, allow_pickle=False) as arrays:
                means = arrays["class_means"]
        except CORRUPT_FILE_ERRORS as error:
            line = str(error).split("\n")[0]
            raise UserError(f"{file} cannot be read ({line}); remove it") from error
        if shape is not None and means.shape != shape:
            raise UserError(
                f"{file} has class means of shape {means.shape}, but the network needs {shape}; "
                "remove the file"
            )
        return means
    means = compute()
    content = io.BytesIO()
    np.savez(content, class_means=means, about=np.array(key))
    files.write_bytes(file, content.getvalue())
    return means
