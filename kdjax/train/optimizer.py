"""Optimizers by name, with a learning rate and a weight decay that may be traced (and swept)."""

import jax
import optax

from kdjax.errors import UserError
from kdjax.train.step import Optimizer
from kdjax.types import PyTree, Scalars

# Without learning rate and weight decay, which `make_optimizer` adds.
DIRECTIONS = {
    "sgd": lambda momentum, nesterov: (
        optax.trace(momentum, nesterov) if momentum else optax.identity()
    ),
    "adam": lambda momentum, nesterov: optax.scale_by_adam(b1=momentum, nesterov=nesterov),
    "adamw": lambda momentum, nesterov: optax.scale_by_adam(b1=momentum, nesterov=nesterov),
    "lion": lambda momentum, nesterov: optax.scale_by_lion(b1=momentum),
    "rmsprop": lambda momentum, nesterov: optax.scale_by_rms(decay=momentum),
}
COUPLED_DECAY = ("sgd", "adam", "rmsprop")  # decay is added to the gradient, as in PyTorch


def make_optimizer(
    name: str,
    schedule: optax.Schedule = optax.constant_schedule(1.0),  # noqa: B008  a pure function
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    clip_norm: float | None = None,
    decay: str = "all",
) -> Optimizer:
    """Return an optimizer: a function of its traced scalars `learning_rate` and `weight_decay`.

    The scalar `step`, which `make_step` adds, is the step of the schedule; without it the optimizer
    counts its own updates.

    Args:
      name: "sgd", "adam", "adamw", "lion" or "rmsprop".
      schedule: peak-1 factor on the learning rate.
      momentum: SGD's momentum, Adam's and Lion's b1, RMSProp's decay.
      nesterov: for SGD and the Adam family.
      clip_norm: clip the role's gradient to this global norm first.
      decay: the target of weight decay: "all" parameters or "kernels" (arrays of rank >= 2).

    Raises:
      UserError: an unknown name, or a clip that is not positive.
    """
    if name not in DIRECTIONS:
        raise UserError(f"no optimizer {name!r}; there are {', '.join(DIRECTIONS)}")
    if decay not in ("all", "kernels"):
        raise UserError(f"decay is {decay!r}; it must be 'all' or 'kernels'")
    if clip_norm is not None and not clip_norm > 0:
        raise UserError(f"clip_norm is {clip_norm}; it must be > 0")
    if nesterov and (name in ("lion", "rmsprop") or (name == "sgd" and not momentum)):
        raise UserError(f"nesterov is set, but {name} has no momentum that it could change")

    mask = None if decay == "all" else _kernels

    def build(scalars: Scalars) -> optax.GradientTransformation:
        rate = scalars["learning_rate"]
        parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
        decayed = optax.add_decayed_weights(scalars["weight_decay"], mask)
        direction = DIRECTIONS[name](momentum, nesterov)
        parts += [decayed, direction] if name in COUPLED_DECAY else [direction, decayed]
        step = scalars.get("step")  # of the run, which counts the steps in which a role pauses
        parts.append(
            optax.scale_by_schedule(lambda count: -rate * schedule(count if step is None else step))
        )
        return optax.chain(*parts)

    return build


def _kernels(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.ndim >= 2, params)
