"""Training of given methods: state, step, loop, devices, sweeps, checkpoints.

The command line imports `malloc` and `distributed` before jax, so these names load on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax.train.optimizer import make_optimizer
    from kdjax.train.step import init_state, make_step

__all__ = ["init_state", "make_optimizer", "make_step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdjax.train import optimizer, step

    return getattr(step if hasattr(step, name) else optimizer, name)
