"""Hinton's distillation on digits: a teacher is trained and frozen, then its student is trained.

Data: the 1,797 real 8 x 8 digits of scikit-learn. One run has two programs: "teacher" trains the
wide network alone (5 seeds at once), "kd" trains the narrow one on .1 CE + .9 T^2 KL, T = 4, each
seed from the teacher with the same seed. The frozen teacher has no backward pass.

    python -m kdjax train --config=experiments/digits_kd.py --workdir=runs/digits_kd

Expected time: 30 seconds on 2 CPU cores. Expected result: student accuracy of about .96 on test;
the comparison at equal budget is digits_compare.py.
"""

from ml_collections import ConfigDict

from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "roles": {
                "teacher": {
                    "model": {"name": "mlp", "hidden": (128, 128)},
                    "optimizer": {**optimizer, "learning_rate": 0.1},
                    "terms": {"ce": {}},
                },
                "student": {
                    "model": {"name": "mlp", "hidden": (16,)},
                    "optimizer": {**optimizer, "learning_rate": 0.03},
                    "terms": {
                        "ce": {"weight": 0.1},
                        "forward_kl": {"toward": "teacher", "weight": 0.9, "temperature": 4.0},
                    },
                },
            },
        }
    )
    variants = {
        "teacher": {"roles": {"student": None}},
        "kd": {"roles": {"teacher": {"terms": {"ce": None}, "from_variant": "teacher"}}},
    }
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    config.sweep = {"seed": (0,) if smoke else (0, 1, 2, 3, 4)}
    return config
