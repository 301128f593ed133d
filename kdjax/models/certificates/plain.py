"""Networks that are one row of layers: `mlp`, `lipschitz_mlp`, `cnn` and `vgg`."""

import jax
import numpy as np

from kdjax.models.certificates.layers import convolution, dense, names
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    HALVE,
    IDENTITY,
    RELU,
    Map,
    Shape,
    isometry,
    row,
)
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.types import Variables

__all__ = ["cnn", "lipschitz_mlp", "mlp", "vgg"]


def mlp(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.mlp`: "pooled" is the last hidden layer once more, or the image."""
    found = []
    for name in names(at, "hidden"):
        layer = dense(at, name)
        found.append((name, row(layer, RELU)._replace(matrix=layer.matrix)))
    last = dense(at, "fc")
    assert last.matrix is not None
    flat = Map(lambda x: x.reshape(len(x), -1), IDENTITY.constant, np.eye(last.matrix.shape[1]))
    return [*found, ("pooled", flat), ("logits", last)]


def lipschitz_mlp(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.lipschitz_mlp`; only the "spectral" kind has statistics."""
    found, kernels = [], {}
    for name in names(at, "layer"):
        kernel = at.params[name]["kernel"]
        with jax.ensure_compile_time_eval():  # numbers, also where the parts are being compiled
            if at.stats:
                kernel = lipschitz.spectral_dense(kernel, at.stats[name], num_iters=0)[0]
            else:
                kernel = lipschitz.bjorck(kernel)
        kernels[name] = {**at.params[name], "kernel": kernel}
    held = Variables(kernels, {})
    *hidden, last = kernels
    for number, name in enumerate(hidden):
        found.append((f"hidden{number}", row(dense(held, name), isometry(lipschitz.group_sort))))
    flat = Map(lambda x: x.reshape(len(x), -1), IDENTITY.constant)
    return [*found, ("pooled", flat), ("logits", dense(held, last))]


def cnn(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.cnn`."""
    found = []
    for number, name in enumerate(names(at, "conv"), start=1):
        found.append((f"stage{number}_pre", convolution(at, name, f"bn{number}", stride=2)))
        found.append((f"stage{number}", RELU))
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]


def vgg(at: Variables, shape: Shape) -> list[tuple[str, Map]]:
    """The parts of `models.vgg`."""
    found = []
    halvings = 4 if min(shape[:2]) >= 64 else 3
    before = []  # maps since the last named layer
    for stage in range(5):
        for name in names(at, f"block{stage}_"):
            if "kernel" not in at.params[name]:
                continue  # the batch norm after it
            number = int(name.split("_")[1])
            before += [convolution(at, name, f"block{stage}_{number + 1}"), RELU]
        if stage:
            found.append((f"stage{stage}_pre", row(*before[:-1])))
            found.append((f"stage{stage}", RELU))
        else:
            found.append(("stem", row(*before)))
        before = [HALVE] if stage < halvings else []
    return [*found, ("pooled", GLOBAL_AVERAGE), ("logits", dense(at, "fc"))]
