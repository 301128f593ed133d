"""A perceptron that cannot stretch: every layer, hence the whole, is 1-Lipschitz."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models.layers.layers import layer_widths
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.types import Array, Batch, Model, Outputs, PyTree, UserError, Variables

KINDS = ("spectral", "bjorck")
START = 50  # power iterations before the first step; one a step keeps pace with small updates


def lipschitz_mlp(
    *,
    num_classes: int,
    hidden: Sequence[int] = (128,),
    kind: str = "spectral",
    dtype: Any = None,
    axis_name: str | None = None,
) -> Model:
    """Make a perceptron of constrained layers with MaxMin between them.

    Args:
      num_classes: width of the output.
      hidden: widths, all even, since MaxMin sorts pairs.
      kind: "spectral" divides kernels by their largest singular value (vectors in the stats),
        "bjorck" makes them orthonormal.
      dtype: float32 only: a rounded product would stretch.
      axis_name: accepted as by every network; nothing is synchronised.

    Raises:
      UserError: an unknown kind, odd widths, another dtype.

    Source: Miyato et al. 2018 (arXiv 1802.05957); Anil et al. 2019 (arXiv 1811.05381).

    >>> model = lipschitz_mlp(num_classes=2, hidden=(8,), kind="bjorck")
    >>> variables = model.init(jax.random.key(0), {"image": jnp.ones((1, 4, 4, 1))})
    >>> lipschitz_mlp_bound(variables, "bjorck") < 1.001
    True
    """
    del axis_name
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}; there are {', '.join(KINDS)}")
    widths = layer_widths("lipschitz_mlp: hidden", hidden)
    if any(width % 2 for width in widths):
        raise UserError(f"hidden is {widths}; all must be even, since MaxMin sorts pairs")
    if dtype is not None and jnp.dtype(dtype) != jnp.float32:
        raise UserError(f"lipschitz_mlp computes in float32 only, not {jnp.dtype(dtype).name}")

    def init(key: Array, batch: Batch) -> Variables:
        sizes = [math.prod(batch["image"].shape[1:]), *widths, num_classes]
        layers, vectors = [], []
        for number, (into, out) in enumerate(itertools.pairwise(sizes)):
            drawn, start = jax.random.split(jax.random.fold_in(key, number))
            kernel = jax.random.normal(drawn, (into, out)) / math.sqrt(into)
            layers.append({"kernel": kernel, "bias": jnp.zeros(out)})
            if kind == "spectral":
                vector = lipschitz.start_vector(start, (out,))
                vectors.append(lipschitz.spectral_dense(kernel, vector, num_iters=START)[1])
        return Variables(_named(layers), _named(vectors))

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        del key
        image = batch["image"]
        x, kept, stats = image.reshape(image.shape[0], -1), {}, {}
        for number in range(len(widths) + 1):
            name = f"layer{number}"
            layer = variables.params[name]
            if kind == "spectral":
                kernel, stats[name] = lipschitz.spectral_dense(
                    layer["kernel"], variables.stats[name], num_iters=int(train)
                )
            else:
                kernel = lipschitz.bjorck(layer["kernel"])
            if number:
                x = lipschitz.group_sort(x)
                kept[f"hidden{number - 1}"] = x
            if number == len(widths):
                kept["pooled"] = x
            # in full: what a GPU or a TPU does by default breaks the certificate
            x = jnp.matmul(x, kernel, precision="highest") + layer["bias"]
        return Outputs(x, kept), (stats if train and stats else variables.stats)

    return Model(init, apply)


def lipschitz_mlp_bound(variables: Variables, kind: str) -> float:
    """Certify the Lipschitz constant of a `lipschitz_mlp`, Euclidean norms, by SVD in float64."""
    found = 1.0
    for name, layer in variables.params.items():
        if kind == "spectral":
            kernel, _ = lipschitz.spectral_dense(
                layer["kernel"], variables.stats[name], num_iters=0
            )
        else:
            kernel = lipschitz.bjorck(layer["kernel"])
        found *= float(np.linalg.norm(np.asarray(kernel, np.float64), 2))
    return found


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return {f"layer{number}": value for number, value in enumerate(values)}
