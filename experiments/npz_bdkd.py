"""BD-KD on your own images: any .npz with x_train, y_train, x_test and y_test.

Images are [n, height, width] or [n, height, width, channel], uint8 or float; labels are integers.
Five seeds are five members of one program. Flags set the networks and the number of steps.

    python -m kdjax train --config=experiments/npz_bdkd.py --config.data.path=mnist_5k.npz \
        --config.data.augment=crop --workdir=runs/npz_bdkd

Expected time: about ten minutes on 2 CPU cores for 4,000 images of 28 x 28. Expected result: not
yet run in full.
"""

from ml_collections import ConfigDict

from experiments import _bdkd


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    data = {"name": "npz", "validation": 0.1}
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10}
    teacher, student = (4, 8) if smoke else (32, 64, 128), (4,) if smoke else (12, 24, 48)
    return ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 16 if smoke else 128,
            "log_every": 100,
            "eval_every": 100,
            "checkpoint_every": 100,
            "data": data,
            "roles": _bdkd.roles(
                {"model": {"name": "cnn", "widths": teacher}, "optimizer": dict(optimizer)},
                {"model": {"name": "cnn", "widths": student}, "optimizer": dict(optimizer)},
            ),
            "sweep": {"seed": (0,) if smoke else (0, 1, 2, 3, 4)},
        },
        sort_keys=False,
    )
