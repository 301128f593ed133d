"""A trained network as layers in a row, each with a Lipschitz constant: what bounds are made of.

Networks that are one chain of linear maps and ReLU: `mlp` and `cnn`. Constants hold for evaluation
mode, in Euclidean norms; a batch norm is folded into the convolution before it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kdjax import bounds
from kdjax.types import Array, UserError, Variables

NAMES = ("mlp", "cnn")
EXACT = 2_000_000  # entries of a Jacobian that an SVD takes in a second


class Stage(NamedTuple):
    """A named layer, and a Lipschitz constant of the map to it from the stage before.

    `matrix` [out, in] if that map is dense (with a ReLU after it or not), which allows tighter
    constants of several stages together.
    """

    name: str
    constant: float
    matrix: np.ndarray | None = None


def chain(model: Mapping[str, Any], variables: Variables, shape: Sequence[int]) -> list[Stage]:
    """Take a network apart.

    Args:
      model: the config's table, with "name".
      variables: of one network, not stacked.
      shape: of an image.

    Returns:
      "input" (constant 1), every named layer once, and "logits".

    Raises:
      UserError: a network that is no such chain.
    """
    if model["name"] not in NAMES:
        raise UserError(
            f"bounds: no Lipschitz constants are known for the layers of a {model['name']}; there "
            f"are {', '.join(NAMES)}"
        )
    stages = [Stage("input", 1.0)]
    if model["name"] == "mlp":
        hidden = sorted((n for n in variables.params if n.startswith("hidden")), key=_number)
        stages += [_dense(name, variables.params[name]) for name in hidden]
    else:
        stages += _convolutions(variables, tuple(shape))
    return [*stages, _dense("logits", variables.params["fc"])]


def tails(stages: Sequence[Stage]) -> np.ndarray:
    """Upper bound of the Lipschitz constant of all that follows each stage, [stages]; last 1.

    The product of the constants; where only dense layers follow, the smaller one of it and
    `bounds.absolute_product_bound`.
    """
    product = np.asarray(bounds.lipschitz_tails(np.array([s.constant for s in stages[1:]])))
    found = list(product)
    for number in range(len(stages) - 1):
        matrices = [stage.matrix for stage in stages[number + 1 :]]
        if all(matrix is not None for matrix in matrices):
            tighter = bounds.absolute_product_bound([m for m in matrices if m is not None])
            found[number] = min(found[number], tighter)
    return np.array(found)


def _number(name: str) -> int:
    return int("".join(c for c in name if c.isdigit()))


def _dense(name: str, layer: Mapping[str, Any]) -> Stage:
    matrix = np.asarray(layer["kernel"], np.float64).T
    return Stage(name, float(np.linalg.norm(matrix, 2)), matrix)


def _convolutions(variables: Variables, shape: tuple[int, ...]) -> list[Stage]:
    """Stages of a `cnn`: convolution with batch norm and ReLU, and the average at the end."""
    stages = []
    names = sorted((n for n in variables.params if n.startswith("conv")), key=_number)
    for name in names:
        number = _number(name)
        kernel = jnp.asarray(variables.params[name]["kernel"], jnp.float32)
        scale = _scale(variables, f"bn{number}")
        operator = _operator(kernel, scale)
        zeros = jnp.zeros(shape, jnp.float32)
        out = jax.eval_shape(operator, zeros)
        stages.append(Stage(f"stage{number}", _norm(operator, zeros)))
        shape = out.shape
    return [*stages, Stage("pooled", float((shape[0] * shape[1]) ** -0.5))]


def _scale(variables: Variables, name: str) -> Array:
    """What a batch norm multiplies each channel by, in evaluation mode."""
    said, kept = variables.params[name], variables.stats["batch_stats"][name]
    return jnp.asarray(said["scale"]) / jnp.sqrt(jnp.asarray(kept["var"]) + 1e-5)


def _operator(kernel: Array, scale: Array) -> Callable[[Array], Array]:
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]

    def apply(image: Array) -> Array:
        form = ("NHWC", "HWIO", "NHWC")
        found = lax.conv_general_dilated(image[None], kernel, (2, 2), pads, dimension_numbers=form)
        return scale * found[0]

    return apply


def _norm(operator: Callable[[Array], Array], zeros: Array) -> float:
    if zeros.size * jax.eval_shape(operator, zeros).size <= EXACT:
        return bounds.operator_norm_exact(operator, zeros) * (1 + 1e-6)  # float32 entries
    return float(bounds.operator_norm(operator, zeros, key=jax.random.key(0)).upper)
