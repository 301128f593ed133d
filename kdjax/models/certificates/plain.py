"""Layers of networks without branches: `mlp`, `lipschitz_mlp`, `cnn` and `vgg`."""

import jax
import numpy as np

from kdjax.models.certificates.layers import convolution, dense, stage_layers, submodule_names
from kdjax.models.certificates.maps import (
    GLOBAL_AVERAGE,
    HALVE,
    IDENTITY,
    RELU,
    Map,
    NamedMaps,
    Shape,
    compose,
    nonexpansive,
)
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.types import Variables


def mlp(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.mlp`; "pooled" repeats the last hidden layer, or the image."""
    layers = []
    for name in submodule_names(module, "hidden"):
        layer = dense(module, name)
        layers.append((name, compose(layer, RELU)._replace(matrix=layer.matrix)))
    last = dense(module, "fc")
    assert last.matrix is not None
    flat = Map(lambda x: x.reshape(len(x), -1), IDENTITY.constant, np.eye(last.matrix.shape[1]))
    return [*layers, ("pooled", flat), ("logits", last)]


def lipschitz_mlp(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.lipschitz_mlp`; only the "spectral" kind has statistics."""
    layers, kernels = [], {}
    for name in submodule_names(module, "layer"):
        kernel = module.params[name]["kernel"]
        with jax.ensure_compile_time_eval():  # numbers, also while the layers are being compiled
            if module.stats:
                kernel = lipschitz.spectral_dense(kernel, module.stats[name], num_iters=0)[0]
            else:
                kernel = lipschitz.bjorck(kernel)
        kernels[name] = {**module.params[name], "kernel": kernel}
    constrained = Variables(kernels, {})
    *hidden, last = kernels
    sort = nonexpansive(lipschitz.group_sort)
    for number, name in enumerate(hidden):
        layers.append((f"hidden{number}", compose(dense(constrained, name), sort)))
    flat = Map(lambda x: x.reshape(len(x), -1), IDENTITY.constant)
    return [*layers, ("pooled", flat), ("logits", dense(constrained, last))]


def cnn(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.cnn`."""
    layers = []
    for number, name in enumerate(submodule_names(module, "conv"), start=1):
        conv = convolution(module, name, f"bn{number}", stride=2)
        layers += stage_layers(number, [conv, RELU])
    return [*layers, ("pooled", GLOBAL_AVERAGE), ("logits", dense(module, "fc"))]


def vgg(module: Variables, shape: Shape) -> NamedMaps:
    """Return the layers of `models.vgg`."""
    layers = []
    halvings = 4 if min(shape[:2]) >= 64 else 3
    pending = []  # maps of the next layer
    for stage in range(5):
        for name in submodule_names(module, f"block{stage}_"):
            if "kernel" not in module.params[name]:
                continue  # a batch norm
            number = int(name.split("_")[1])
            pending += [convolution(module, name, f"block{stage}_{number + 1}"), RELU]
        if stage:
            layers += stage_layers(stage, pending)
        else:
            layers.append(("stem", compose(*pending)))
        pending = [HALVE] if stage < halvings else []
    return [*layers, ("pooled", GLOBAL_AVERAGE), ("logits", dense(module, "fc"))]
