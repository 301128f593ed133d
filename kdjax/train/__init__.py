"""Training: state, step, loop, devices, sweeps, checkpoints. Receives methods, builds none."""

from kdjax.train.optimizer import make_optimizer, make_schedule
from kdjax.train.step import init_state, make_step

__all__ = ["init_state", "make_optimizer", "make_schedule", "make_step"]
