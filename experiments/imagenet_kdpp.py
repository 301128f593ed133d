"""KD++ on ImageNet at 224 x 224: distillation with regularised feature norm and direction (ND).

CE + kd KL (T = 1, rising over 5 epochs) + nd ND, weights below; 100 epochs, batch 512, SGD .9,
learning rate .2, x.1 at 30, 60 and 90, weight decay 1e-4: the published recipe, in bfloat16.
10,000 of the training images are held out for validation. Data: tfds `imagenet2012`, prepared on
disk (see docs/own_data.md) and decoded by worker processes. The teacher's class means are
measured in one pass before training. MobileNetV1's feature is narrower than ResNet-50's, so ND
compares through an adapter of batch norm, dropout and a linear map, which is dropped at export.
The argument is one of the pairs below (default r34_r18).

    python -m kdjax import --model=ResNet34 --weights=resnet34.pth \
        --shape=224,224,3 --mean=.485,.456,.406 --std=.229,.224,.225 --out=teachers/ResNet34
    python -m kdjax train --config=experiments/imagenet_kdpp.py:r34_r18 \
        --config.roles.teacher.checkpoint=teachers/ResNet34 --workdir=runs/imagenet_kdpp

Expected time: not measured; days on one accelerator.

Expected result: not run here. Published top-1:

               teacher  student     KD++
    r34_r18      73.31    69.76    71.98
    r50_mv1      76.16    68.87    72.77
"""

from ml_collections import ConfigDict

EPOCHS, DECAYS, RAMP, BATCH = 100, (30, 60, 90), 5, 512
VALIDATION = 10_000
EPOCH = (1_281_167 - VALIDATION) // BATCH
WEIGHTS = {"r34_r18": (2.5, 1.0), "r50_mv1": (4.0, 1.0)}  # kd, nd
STEM = {"stem": "imagenet"}
# networks, and the teacher's pooled width if the student's differs
PAIRS = {
    "r34_r18": ({"name": "ResNet34", **STEM}, {"name": "ResNet18", **STEM}, None),
    "r50_mv1": ({"name": "ResNet50", **STEM}, {"name": "MobileNetV1"}, 2048),
}
SMOKE = ({"name": "cnn", "widths": (6,)}, {"name": "cnn", "widths": (4,)}, 6)


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    pair = "r34_r18" if smoke or not arg else arg
    if pair not in PAIRS:
        raise ValueError(f"no pair {pair!r}; there are {', '.join(PAIRS)} and smoke")
    teacher, student, width = SMOKE if smoke else PAIRS[pair]
    kd, nd = WEIGHTS[pair]
    adapter = {"kind": "norm_direction", "layer": "pooled", "width": width}
    ramp = {"name": "linear", "steps": RAMP * EPOCH}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * EPOCH,
            "batch_size": 16 if smoke else BATCH,
            "log_every": 100,
            "eval_every": EPOCH,
            "checkpoint_every": EPOCH,
            "precision": "float32" if smoke else "bfloat16",
            "data": data(smoke),
            "roles": {
                "teacher": {
                    "model": teacher,
                    "optimizer": {"name": "sgd", "learning_rate": 0.1},
                    "terms": {},  # frozen
                },
                "student": {
                    "model": student,
                    "optimizer": {
                        "name": "sgd",
                        "learning_rate": 0.2,
                        "momentum": 0.9,
                        "weight_decay": 1e-4,
                        "schedule": {
                            "name": "step",
                            "boundaries": tuple(e * EPOCH for e in DECAYS),
                        },
                    },
                    "terms": {
                        "ce": {},
                        "forward_kl": {
                            "toward": "teacher",
                            "weight": kd,
                            "temperature": 1.0,
                            "ramp": ramp,
                        },
                        "norm_direction": {
                            "toward": "teacher",
                            "weight": nd,
                            "own_layer": "projected" if width else "pooled",
                        },
                    },
                    "adapters": {"projected": adapter} if width else {},
                },
            },
            "sweep": {"seed": (0,)},
        },
        sort_keys=False,
    )
    if smoke:
        config.variants = ConfigDict(variants(), sort_keys=False)
    return config


def data(smoke: bool) -> dict:
    """Return the data config: tfds, or synthetic images for the smoke test."""
    if smoke:
        synthetic = {"name": "synthetic", "shape": (8, 8, 3), "num_classes": 10, "validation": 0.2}
        return {**synthetic, "augment": "crop_flip"}
    return {
        "name": "imagenet2012",
        "validation": VALIDATION,
        "augment": "resized_crop_flip",
        "image_size": 224,
        "mean": (0.485, 0.456, 0.406),  # normalisation of the published teachers
        "std": (0.229, 0.224, 0.225),
        "workers": 8,
    }


def variants() -> dict:
    """Return variants for runs without a checkpoint: first the teacher, then the student."""
    return {
        "teacher": {"roles": {"teacher": {"terms": {"ce": {}}}, "student": None}},
        "student": {"roles": {"teacher": {"from_variant": "teacher"}}},
    }
