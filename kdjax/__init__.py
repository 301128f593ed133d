"""Knowledge distillation beyond one KL, as pure jitted functions."""

__version__ = "0.1.0"
