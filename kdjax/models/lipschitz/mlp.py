"""A 1-Lipschitz perceptron: every layer, and so the network, is 1-Lipschitz."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError, check_entries
from kdjax.models.layers.layers import layer_widths
from kdjax.models.lipschitz import layers as lipschitz
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

KINDS = ("spectral", "bjorck")


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
      hidden: widths, all even because MaxMin sorts pairs.
      kind: "spectral" divides kernels by their largest singular value (vectors in the stats),
        "bjorck" makes them orthonormal.
      dtype: float32 only: rounding could exceed the constant.
      axis_name: accepted for uniformity, not used.

    Raises:
      UserError: an unknown kind, odd widths, another dtype.

    Source: Miyato et al. 2018 (arXiv 1802.05957); Anil et al. 2019 (arXiv 1811.05381).

    >>> import jax
    >>> model = lipschitz_mlp(num_classes=2, hidden=(8,), kind="bjorck")
    >>> variables = model.init(jax.random.key(0), {"image": jnp.ones((1, 4, 4, 1))})
    >>> lipschitz_mlp_bound(variables, "bjorck") < 1.001
    True
    """
    del axis_name
    _check_kind(kind)
    widths = layer_widths("lipschitz_mlp: hidden", hidden)
    if any(width % 2 for width in widths):
        raise UserError(f"hidden is {widths}; all must be even, since MaxMin sorts pairs")
    if dtype not in (None, jnp.float32):
        raise UserError(f"lipschitz_mlp computes in float32 only, not {dtype}")

    def init(key: Array, batch: Batch) -> Variables:
        check_entries("lipschitz_mlp", ("image",), batch)
        sizes = [math.prod(batch["image"].shape[1:]), *widths, num_classes]
        layers, vectors = lipschitz.init_dense(key, sizes)
        return Variables(_named(layers), _named(vectors) if kind == "spectral" else {})

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        del key
        check_entries("lipschitz_mlp", ("image",), batch)
        image = batch["image"]
        x, features, stats = image.reshape(image.shape[0], -1), {}, {}
        for number in range(len(widths) + 1):
            name = f"layer{number}"
            kernel, stats[name] = _constrained(variables, name, kind, num_iters=int(train))
            if number:
                x = lipschitz.group_sort(x)
                features[f"hidden{number - 1}"] = x
            if number == len(widths):
                features["pooled"] = x
            # full float32: the default precision of GPUs and TPUs breaks the certificate
            bias = variables.params[name]["bias"]
            x = jnp.matmul(x, kernel, precision="highest") + bias
        return Outputs(x, features), (stats if train and kind == "spectral" else variables.stats)

    return Model(init, apply)


def lipschitz_mlp_bound(variables: Variables, kind: str) -> float:
    """Certify the Lipschitz constant of a `lipschitz_mlp`, Euclidean norms, by SVD in float64."""
    _check_kind(kind)
    kernels = (_constrained(variables, name, kind, num_iters=0)[0] for name in variables.params)
    return math.prod(float(np.linalg.norm(np.asarray(k, np.float64), 2)) for k in kernels)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"kind is {kind!r}; there are {', '.join(KINDS)}")


def _constrained(
    variables: Variables, name: str, kind: str, *, num_iters: int
) -> tuple[Array, Array | None]:
    """Return the constrained kernel of a layer, and its vector after the iterations."""
    kernel = variables.params[name]["kernel"]
    if kind == "spectral":
        return lipschitz.spectral_dense(kernel, variables.stats[name], num_iters=num_iters)
    return lipschitz.bjorck(kernel), None


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return {f"layer{number}": value for number, value in enumerate(values)}
