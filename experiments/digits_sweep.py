"""BD-KD's temperature and emphasis on digits: 3 x 3 x 5 seeds, 45 pairs of networks, one program.

Data: the 1,797 real 8 x 8 digits of scikit-learn. All members are stacked and trained by one
compiled step; the report shows the grid as a heat map.

    python -m kdjax train --config=experiments/digits_sweep.py --workdir=runs/digits_sweep

Expected time: half a minute on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments import _bdkd


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.03, "momentum": 0.9, "weight_decay": 5e-4}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "roles": _bdkd.roles(
                {"model": {"name": "mlp", "hidden": (128, 128)}, "optimizer": dict(optimizer)},
                {"model": {"name": "mlp", "hidden": (16,)}, "optimizer": dict(optimizer)},
            ),
        }
    )
    balanced = "roles.student.terms.balanced_kl"
    config.sweep = ConfigDict(
        {
            f"{balanced}.temperature": (1.0, 4.0) if smoke else (1.0, 2.0, 4.0),
            f"{balanced}.emphasis": (1.0,) if smoke else (1.0, 2.0, 4.0),
            "seed": (0,) if smoke else (0, 1, 2, 3, 4),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config
