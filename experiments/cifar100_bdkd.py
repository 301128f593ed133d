"""BD-KD on CIFAR-100, full size: pairs of the published tables of online distillation.

The argument is TEACHER,STUDENT (default wrn_16_2,resnet20). Data: tfds `cifar100`, prepared once
on disk (see README, "Data").

    python -m kdjax train --config=experiments/cifar100_bdkd.py --workdir=runs/cifar100_bdkd
    python -m kdjax train --config=experiments/cifar100_bdkd.py:resnet32x4,resnet8x4 --workdir=...

300 epochs, batch 128, SGD .9, weight decay 5e-4, learning rate x.1 at 140, 200 and 250: the
settings of the SwitOKD table, which the specification gives for this data; five per cent of the
training images validate. Three seeds are three members of one program.

Expected time: not measured; hours on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

PAIR = "wrn_16_2,resnet20"


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    teacher, student = (PAIR if smoke or not arg else arg).split(",")
    epoch = 47_500 // 128
    schedule = {"name": "step", "boundaries": tuple(e * epoch for e in (140, 200, 250))}
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "schedule": schedule}
    data = {"name": "cifar100", "path": None, "validation": 0.05, "augment": "crop_flip"}
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 100}
        teacher, student = "cnn", "cnn"
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 2 if smoke else 300 * epoch,
            "batch_size": 16 if smoke else 128,
            "log_every": 100,
            "eval_every": 5 * epoch,
            "checkpoint_every": 5 * epoch,
            "parallel": "pmap",
            "precision": "float32",
            "data": data,
            "roles": {
                "teacher": {
                    "model": {"name": teacher},
                    "checkpoint": None,
                    "optimizer": {**optimizer, "learning_rate": 0.1},
                    "terms": {
                        "ce": {"weight": 1.0},
                        "forward_kl": {"toward": "student", "temperature": 2.0},
                    },
                },
                "student": {
                    "model": {"name": student},
                    "checkpoint": None,
                    "optimizer": {**optimizer, "learning_rate": 0.01},
                    "terms": {
                        "ce": {"weight": 1.0},
                        "balanced_kl": {
                            "toward": "teacher",
                            "temperature": 2.0,
                            "emphasis": 2.0,
                            "entropy_temperature": 1.0,
                        },
                    },
                },
            },
            "variants": {},
            "sweep": {"seed": (0,) if smoke else (0, 1, 2)},
        },
        sort_keys=False,
    )
