"""A raw batch of zeros, to compute the shapes of networks and states."""

import numpy as np

from kdjax.types import Source


def example_batch(source: Source, size: int = 2) -> dict[str, np.ndarray]:
    """Return a raw batch of `size` examples of zeros."""
    spec = source.spec
    images = {"image": (spec.shape, "uint8" if spec.scale == 255 else "float32")}
    regression = spec.task and spec.num_classes == 1
    return {
        "label": np.zeros(
            (size, len(spec.latents)) if spec.latents else size,
            np.float32 if regression else np.int32,
        ),
        **{
            name: np.zeros((size, *shape), dtype)
            for name, (shape, dtype) in (spec.inputs or images).items()
        },
        **({"view": np.zeros((size, *spec.shape), images["image"][1])} if spec.latents else {}),
        "id": np.zeros(size, np.int32),
        "mask": np.ones(size, np.float32),
    }
