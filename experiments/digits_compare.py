"""Accuracy and calibration of six training methods for a small network on digits.

Data: the 1,797 real 8 x 8 digits of scikit-learn; a quarter is the test split, a fifth of the
rest the validation split. Teacher: an MLP of 26,122 parameters; student: an MLP of 1,210.

    python -m kdjax train --config=experiments/digits_compare.py --workdir=runs/digits

Every method sweeps the learning rate (5 values x 10 seeds, one compiled program), because a
distillation term scales the gradient and a common rate would favour one method. The rate is
selected on the validation split. KD's teacher is the one of "alone" with the same seed.

Expected time: about 2 minutes on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

SWITOKD = {"name": "switokd", "watch": "student"}  # pauses the teacher when it is too far ahead


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 100,
            "grad_norm_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "roles": {
                "teacher": {
                    "model": {"name": "mlp", "hidden": (128, 128)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
                "student": {
                    "model": {"name": "mlp", "hidden": (16,)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
            },
        }
    )
    variants = {
        "alone": {},
        "kd": {"title": "KD", **kd()},
        "dml": {"title": "DML", **mutual({"forward_kl": {"temperature": 1.0}})},
        "kdcl": {"title": "KDCL", **mutual({"minimum_logit_kl": {"temperature": 2.0}})},
        "switokd": {
            "title": "SwitOKD",
            **mutual({"forward_kl": {"temperature": 1.0}}, teacher={"pause": SWITOKD}),
        },
        "bdkd": {
            "title": "BD-KD",
            **players(
                teacher={"forward_kl": {"toward": "student", "temperature": 2.0}},
                student={
                    "balanced_kl": {
                        "toward": "teacher",
                        "temperature": 2.0,
                        "emphasis": 2.0,
                        "entropy_temperature": 1.0,
                    }
                },
            ),
        },
    }
    config.variants = ConfigDict(variants, sort_keys=False)
    rates, seeds = ((0.05, 0.1), (0,)) if smoke else ((0.01, 0.03, 0.1, 0.3, 1.0), tuple(range(10)))
    config.sweep = ConfigDict(
        {"roles.*.optimizer.learning_rate": rates, "seed": seeds},
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def kd() -> dict:
    """Return Hinton's distillation: a frozen teacher, .1 CE + .9 T^2 KL at T = 4."""
    return {
        "roles": {
            "teacher": {"terms": {"ce": None}, "from_variant": "alone"},
            "student": {
                "terms": {
                    "ce": {"weight": 0.1},
                    "forward_kl": {"toward": "teacher", "weight": 0.9, "temperature": 4.0},
                }
            },
        }
    }


def players(teacher: dict, student: dict) -> dict:
    """Return a variant: the terms of each role besides cross-entropy."""
    return {"roles": {"teacher": {"terms": teacher}, "student": {"terms": student}}}


def mutual(terms: dict, teacher: dict | None = None) -> dict:
    """Return a variant with the same terms for both roles, each toward the other."""
    sides = {"teacher": "student", "student": "teacher"}
    roles = {
        role: {"terms": {name: {"toward": peer, **scalars} for name, scalars in terms.items()}}
        for role, peer in sides.items()
    }
    return {"roles": {**roles, "teacher": {**roles["teacher"], **(teacher or {})}}}
