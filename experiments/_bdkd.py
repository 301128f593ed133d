"""Shared parts of the files *_bdkd.py: two trained networks, the student with BD-KD.

The student minimises CE + BD-KD toward the teacher, the teacher CE + KL toward the student, both
at T = 2. Each file adds its data, its pair of networks and its schedule.
"""

from typing import NamedTuple

from ml_collections import ConfigDict


class Recipe(NamedTuple):
    """A pair of networks and their SGD recipe; the learning rate falls tenfold at each boundary."""

    pair: str  # TEACHER,STUDENT
    data: dict
    synthetic: dict  # shape and classes of the data of the smoke test
    images: int  # training images
    epochs: int
    decays: tuple[int, ...]  # epochs at which the learning rate falls
    rates: tuple[float, float] = (0.1, 0.1)  # teacher, student
    batch_size: int = 128
    weight_decay: float = 5e-4
    epochs_between_evaluations: int = 5
    precision: str = "float32"
    seeds: tuple[int, ...] = (0, 1, 2)


def experiment(arg: str, recipe: Recipe) -> ConfigDict:
    """Return the config of a recipe; `arg` is TEACHER,STUDENT, "smoke" or empty."""
    smoke = arg == "smoke"
    names = ["cnn", "cnn"] if smoke else (arg or recipe.pair).split(",")
    epoch = recipe.images // recipe.batch_size
    boundaries = tuple(at * epoch for at in recipe.decays)
    sgd = {
        "name": "sgd",
        "momentum": 0.9,
        "weight_decay": recipe.weight_decay,
        "schedule": {"name": "step", "boundaries": boundaries},
    }
    teacher, student = (
        {"model": {"name": name}, "optimizer": {**sgd, "learning_rate": rate}}
        for name, rate in zip(names, recipe.rates, strict=True)
    )
    return ConfigDict(
        {
            "num_steps": 2 if smoke else recipe.epochs * epoch,
            "batch_size": 16 if smoke else recipe.batch_size,
            "log_every": 100,
            "eval_every": recipe.epochs_between_evaluations * epoch,
            "checkpoint_every": recipe.epochs_between_evaluations * epoch,
            "precision": "float32" if smoke else recipe.precision,
            "data": {
                "validation": 0.05,
                "augment": "crop_flip",
                **({"name": "synthetic", **recipe.synthetic} if smoke else recipe.data),
            },
            "roles": roles(teacher, student),
            "sweep": {"seed": (0,) if smoke else recipe.seeds},
        },
        sort_keys=False,
    )


def roles(teacher: dict, student: dict) -> dict:
    """Return both roles with the terms of BD-KD."""
    balanced = {"temperature": 2.0, "emphasis": 2.0, "entropy_temperature": 1.0}
    forward_kl = {"toward": "student", "temperature": 2.0}
    balanced_kl = {"toward": "teacher", **balanced}
    return {
        "teacher": {**teacher, "terms": {"ce": {}, "forward_kl": forward_kl}},
        "student": {**student, "terms": {"ce": {}, "balanced_kl": balanced_kl}},
    }
