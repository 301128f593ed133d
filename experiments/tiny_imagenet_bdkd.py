"""BD-KD on Tiny-ImageNet: 200 classes, 100,000 images of 64 x 64.

The argument is TEACHER,STUDENT (default wrn_16_2,resnet20). Data: the folder layout of the public
archive (tiny-imagenet-200), which has no labelled test split: its own validation images are our
test split, and five per cent of the training images validate.

    python -m kdjax train --config=experiments/tiny_imagenet_bdkd.py \
        --config.data.path=tiny-imagenet-200 --workdir=runs/tiny_imagenet_bdkd

200 epochs, batch 128, SGD .9, weight decay 5e-4, learning rate .01, x.1 at 100, 140 and 180: the
settings of the SwitOKD table, which the specification gives for this data.

Expected time: not measured; hours on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

PAIR = "wrn_16_2,resnet20"


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    teacher, student = (PAIR if smoke or not arg else arg).split(",")
    epoch = 95_000 // 128
    schedule = {"name": "step", "boundaries": tuple(e * epoch for e in (100, 140, 180))}
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "schedule": schedule}
    data = {"name": "tiny_imagenet", "path": None, "validation": 0.05, "augment": "crop_flip"}
    if smoke:
        data |= {"name": "synthetic", "shape": (64, 64, 3), "num_classes": 200}
        teacher, student = "cnn", "cnn"
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 2 if smoke else 200 * epoch,
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
                    "optimizer": {**optimizer, "learning_rate": 0.01},
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
