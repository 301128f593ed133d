"""Optimizers by name, with a learning rate and a weight decay that may be traced (and swept)."""

from collections.abc import Sequence

import jax
import optax

from kdjax.train.step import Optimizer
from kdjax.types import PyTree, Scalars, UserError

# Without the learning rate and weight decay, which `make_optimizer` adds.
DIRECTIONS = {
    "sgd": lambda momentum, nesterov: (
        optax.trace(momentum, nesterov) if momentum else optax.identity()
    ),
    "adam": lambda momentum, nesterov: optax.scale_by_adam(b1=momentum, nesterov=nesterov),
    "adamw": lambda momentum, nesterov: optax.scale_by_adam(b1=momentum, nesterov=nesterov),
    "lion": lambda momentum, nesterov: optax.scale_by_lion(b1=momentum),
    "rmsprop": lambda momentum, nesterov: optax.scale_by_rms(decay=momentum),
}
COUPLED_DECAY = ("sgd", "adam", "rmsprop")  # decay joins the gradient, as PyTorch's does


def make_schedule(
    name: str,
    *,
    num_steps: int,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    factor: float = 0.1,
) -> optax.Schedule:
    """A schedule with peak 1, to be multiplied by the learning rate.

    Args:
      name: "constant", "step" (times `factor` at each of `boundaries`), "cosine" or "linear"
        (both fall to 0 at `num_steps`).
      num_steps: the length of the run.
      warmup_steps: a linear rise from 0 before all that.
      boundaries: steps, for "step".
      factor: for "step".

    Raises:
      UserError: an unknown name.
    """
    rest = max(num_steps - warmup_steps, 1)
    if name == "constant":
        main = optax.constant_schedule(1.0)
    elif name == "step":
        shifted = {int(b) - warmup_steps: factor for b in boundaries}
        main = optax.piecewise_constant_schedule(1.0, shifted)
    elif name == "cosine":
        main = optax.cosine_decay_schedule(1.0, rest)
    elif name == "linear":
        main = optax.linear_schedule(1.0, 0.0, rest)
    else:
        raise UserError(f"no schedule {name!r}; there are constant, step, cosine, linear")
    if not warmup_steps:
        return main
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return optax.join_schedules([rise, main], [warmup_steps])


def make_optimizer(
    name: str,
    schedule: optax.Schedule = optax.constant_schedule(1.0),  # noqa: B008  a pure function
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    clip_norm: float | None = None,
    decay: str = "all",
) -> Optimizer:
    """An optimizer as a function of its traced scalars `learning_rate` and `weight_decay`.

    Args:
      name: "sgd", "adam", "adamw", "lion" or "rmsprop".
      schedule: peak-1 factor on the learning rate.
      momentum: SGD's momentum, Adam's and Lion's b1, RMSProp's decay.
      nesterov: for SGD and the Adam family.
      clip_norm: clip the role's gradient to this global norm first.
      decay: what weight decay acts on: "all" parameters or "kernels" (arrays of rank >= 2).

    Raises:
      UserError: an unknown name, or a clip that is not positive.
    """
    if name not in DIRECTIONS:
        raise UserError(f"no optimizer {name!r}; there are {', '.join(DIRECTIONS)}")
    if decay not in ("all", "kernels"):
        raise UserError(f"decay is {decay!r}; it must be 'all' or 'kernels'")
    if clip_norm is not None and not clip_norm > 0:
        raise UserError(f"clip_norm is {clip_norm}; it must be > 0")

    mask = None if decay == "all" else _kernels

    def build(scalars: Scalars) -> optax.GradientTransformation:
        rate = scalars["learning_rate"]
        parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
        decayed = optax.add_decayed_weights(scalars["weight_decay"], mask)
        direction = DIRECTIONS[name](momentum, nesterov)
        parts += [decayed, direction] if name in COUPLED_DECAY else [direction, decayed]
        parts.append(optax.scale_by_schedule(lambda count: -rate * schedule(count)))
        return optax.chain(*parts)

    return build


def _kernels(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.ndim >= 2, params)
