"""BD-KD on ImageNet's classes at 64 x 64: a pair of networks on 1.28 million images, streamed.

The argument is TEACHER,STUDENT (default wrn_40_2,wrn_16_2): the networks of this version are made
for small images, so that the set is tfds `imagenet_resized/64x64`; the ImageNet networks at
224 x 224 come with the vision zoo. Images are decoded by worker processes (data.workers).

    python -m kdjax train --config=experiments/imagenet_bdkd.py --workdir=runs/imagenet_bdkd

120 epochs, batch 512, SGD .9, weight decay 1e-4, learning rate .1, x.1 at 30, 60 and 90: the
settings of the SwitOKD table, which the specification gives for ImageNet; bfloat16 computation.

Expected time: not measured; days on one accelerator. Expected result: not yet run.
"""

from ml_collections import ConfigDict

PAIR = "wrn_40_2,wrn_16_2"


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    teacher, student = (PAIR if smoke or not arg else arg).split(",")
    epoch = 1_217_000 // 512
    schedule = {"name": "step", "boundaries": tuple(e * epoch for e in (30, 60, 90))}
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "schedule": schedule}
    data = {
        "name": "imagenet_resized/64x64",
        "path": None,
        "validation": 0.05,
        "augment": "crop_flip",
        "workers": 8,
    }
    if smoke:
        data |= {"name": "synthetic", "shape": (64, 64, 3), "num_classes": 100, "workers": 0}
        teacher, student = "cnn", "cnn"
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 2 if smoke else 120 * epoch,
            "batch_size": 16 if smoke else 512,
            "log_every": 100,
            "eval_every": epoch,
            "checkpoint_every": epoch,
            "parallel": "pmap",
            "precision": "float32" if smoke else "bfloat16",
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
                    "optimizer": {**optimizer, "learning_rate": 0.1},
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
            "sweep": {"seed": (0,)},
        },
        sort_keys=False,
    )
