"""BD-KD's temperature and emphasis on 5,000 real photographs: why does it win or lose there?

Networks and data of cifar10_jpeg_compare.py, BD-KD alone, at the learning rate that validation
chose there; 3 temperatures x 3 emphases x 2 seeds are 18 members of one program. Read the
validation heat map of the report; the test split decides nothing.

    python -m kdjax train --config=experiments/cifar10_jpeg_sweep.py \
        --config.data.path=cifar10_jpeg_5k.npz --workdir=runs/cifar10_jpeg_sweep

Expected time: about 12 minutes on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments import _bdkd


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.3, "momentum": 0.9, "weight_decay": 5e-4}
    data = {"name": "npz", "validation": 500, "augment": "crop_flip"}
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10, "validation": 0.2}
    teacher, student = ((4, 8), (4,)) if smoke else ((24, 48, 96), (10, 20, 40))
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 810,  # 30 epochs of 3,500 images
            "batch_size": 16 if smoke else 128,
            "eval_every": 81,
            "checkpoint_every": 81,
            "data": data,
            "roles": _bdkd.roles(
                {"model": {"name": "cnn", "widths": teacher}, "optimizer": dict(optimizer)},
                {"model": {"name": "cnn", "widths": student}, "optimizer": dict(optimizer)},
            ),
        }
    )
    balanced = "roles.student.terms.balanced_kl"
    config.sweep = ConfigDict(
        {
            f"{balanced}.temperature": (2.0,) if smoke else (1.0, 2.0, 4.0),
            f"{balanced}.emphasis": (1.0,) if smoke else (1.0, 2.0, 4.0),
            "seed": (0,) if smoke else (0, 1),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config
