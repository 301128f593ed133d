"""A ResNet trained alone on ImageNet at 224 x 224: the teachers of `imagenet_kdpp.py`.

The argument is the network: ResNet18, ResNet34 or ResNet50 (default ResNet34). Random resized crop
(8 to 100 % of the area) and flip run inside the compiled step; evaluation uses the central crop of
.875 of the shorter side. 100 epochs, batch 512, SGD .9, learning rate .2, x.1 at 30, 60 and 90,
weight decay 1e-4, in bfloat16 (parameters, batch statistics, logits and losses are float32). Label
smoothing is off, as in the published numbers. 10,000 of the training images are held out for
validation; the official validation set is the test split. Data: tfds `imagenet2012`, prepared on
disk (see docs/own_data.md) and decoded by worker processes (data.workers); `python
benchmarks/input.py` measures how many the machine needs.

    python -m kdjax train --config=experiments/imagenet_resnet.py:ResNet34 \
        --workdir=runs/imagenet_resnet
    python -m kdjax export --workdir=runs/imagenet_resnet --role=student --out=teachers/ResNet34

Expected time: not measured; days on one accelerator.

Expected result: not run here. Published top-1: ResNet18 69.76, ResNet34 73.31, ResNet50 76.16.
"""

from ml_collections import ConfigDict

EPOCHS, DECAYS, BATCH = 100, (30, 60, 90), 512
VALIDATION = 10_000
EPOCH = (1_281_167 - VALIDATION) // BATCH
NETWORKS = ("ResNet18", "ResNet34", "ResNet50")


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    name = arg or "ResNet34"
    if not smoke and name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(NETWORKS)} and smoke")
    model = {"name": "cnn", "widths": (4,)} if smoke else {"name": name, "stem": "imagenet"}
    schedule = {"name": "step", "boundaries": tuple(e * EPOCH for e in DECAYS)}
    return ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * EPOCH,
            "batch_size": 16 if smoke else BATCH,
            "eval_batch_size": 16 if smoke else BATCH,
            "log_every": 100,
            "eval_every": EPOCH,
            "checkpoint_every": EPOCH,
            "precision": "bfloat16",
            "data": data(smoke),
            "roles": {
                "student": {
                    "model": model,
                    "optimizer": {
                        "name": "sgd",
                        "learning_rate": 0.2,
                        "momentum": 0.9,
                        "weight_decay": 1e-4,
                        "schedule": schedule,
                    },
                    "terms": {"ce": {"weight": 1.0, "label_smoothing": 0.0}},
                },
            },
            "sweep": {"seed": (0,)},
        },
        sort_keys=False,
    )


def data(smoke: bool) -> dict:
    """Return the data config: tfds, or synthetic images for the smoke test."""
    if smoke:
        synthetic = {"name": "synthetic", "shape": (8, 8, 3), "num_classes": 10, "validation": 0.2}
        return {**synthetic, "augment": "resized_crop_flip"}
    return {
        "name": "imagenet2012",
        "validation": VALIDATION,
        "augment": "resized_crop_flip",
        "image_size": 224,
        "mean": (0.485, 0.456, 0.406),  # as the published networks were trained
        "std": (0.229, 0.224, 0.225),
        "workers": 8,
    }
