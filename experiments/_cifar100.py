"""The pairs and the schedule of cifar100_table.py.

A frozen teacher trains a randomly initialised student for 240 epochs on CIFAR-100 (tfds
`cifar100`). The learning rate is multiplied by .1 at epochs 150, 180 and 210; weight decay is
5e-4. The published runs train on all 50,000 images; here 5 % of them are held out for validation.
"""

from ml_collections import ConfigDict

EPOCHS, DECAYS, RAMP = 240, (150, 180, 210), 20
IMAGES = 47_500  # of 50,000
LABELS = ("ce", "view_cross_entropy")  # terms that compare with labels
THREE = ("stage1_pre", "stage2_pre", "stage3_pre", "pooled")
FOUR = ("stage1_pre", "stage2_pre", "stage3_pre", "stage4_pre", "pooled")

# ND needs an adapter where the pooled widths differ. ReviewKD compares the levels: the teacher's
# layers, widths and sizes, and the student's layers (MobileNetV2 has no ReLU after a stage).
PAIRS: dict = {
    "res56_20": {
        "teacher": ("resnet56", 64),
        "student": ("resnet20", 64),
        "levels": (THREE, (16, 32, 64, 64), (32, 16, 8, 1), THREE),
    },
    "wrn40_2_40_1": {
        "teacher": ("wrn_40_2", 128),
        "student": ("wrn_40_1", 64),
        "levels": (THREE, (32, 64, 128, 128), (32, 16, 8, 1), THREE),
    },
    "res32x4_8x4": {
        "teacher": ("resnet32x4", 256),
        "student": ("resnet8x4", 256),
        "levels": (THREE, (64, 128, 256, 256), (32, 16, 8, 1), THREE),
    },
    "res50_mv2": {
        "teacher": ("ResNet50", 2048),
        "student": ("MobileNetV2", 1280),
        "levels": (
            FOUR,
            (256, 512, 1024, 2048, 2048),
            (32, 16, 8, 4, 1),
            ("stage1", "stage2", "stage3", "stage4", "pooled"),
        ),
    },
    "res32x4_shv1": {
        "teacher": ("resnet32x4", 256),
        "student": ("ShuffleV1", 960),
        "levels": (THREE, (64, 128, 256, 256), (32, 16, 8, 1), THREE),
    },
    "res32x4_shv2": {
        "teacher": ("resnet32x4", 256),
        "student": ("ShuffleV2", 1024),
        "levels": (THREE, (64, 128, 256, 256), (32, 16, 8, 1), THREE),
    },
}
# Two tiny networks for the smoke test (synthetic images, two steps).
SMOKE: dict = {
    "teacher": ("cnn", 6),
    "student": ("cnn", 4),
    "options": {"teacher": {"widths": (6,)}, "student": {"widths": (4,)}},
    "levels": (("stage1_pre", "pooled"), (6, 6), (4, 1), ("stage1_pre", "pooled")),
}


def choose(arg: str) -> tuple[str, dict, bool]:
    """Return the pair's name, its entry in PAIRS, and whether `arg` is "smoke"."""
    if arg == "smoke":
        return "res56_20", SMOKE, True
    name = arg or "res56_20"
    if name not in PAIRS:
        raise ValueError(f"no pair {name!r}; there are {', '.join(PAIRS)} and smoke")
    return name, PAIRS[name], False


def experiment(
    pair: dict, terms: dict, adapters: dict, optimizer: dict, batch_size: int, smoke: bool
) -> ConfigDict:
    """Return the config of a student with these terms, adapters, optimizer and batch size."""
    epoch = IMAGES // batch_size
    schedule = {"name": "step", "boundaries": tuple(at * epoch for at in DECAYS)}
    sgd = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "schedule": schedule, **optimizer}
    data = {
        "name": "cifar100",
        "validation": 0.05,
        "augment": "crop_flip",
        "mean": (0.5071, 0.4867, 0.4408),  # normalisation of the published teachers
        "std": (0.2675, 0.2565, 0.2761),
    }
    if smoke:
        data |= {"name": "synthetic", "shape": (8, 8, 3), "num_classes": 10, "validation": 0.2}
    options = pair.get("options", {"teacher": {}, "student": {}})
    toward = {
        name: {**({} if name in LABELS else {"toward": "teacher"}), **terms[name]} for name in terms
    }
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * epoch,
            "batch_size": 16 if smoke else batch_size,
            "log_every": 100,
            "eval_every": 5 * epoch,
            "checkpoint_every": 5 * epoch,
            "data": data,
            "roles": {
                "teacher": {
                    "model": {"name": pair["teacher"][0], **options["teacher"]},
                    "optimizer": {"name": "sgd", "learning_rate": 0.1},
                    "terms": {},  # frozen
                },
                "student": {
                    "model": {"name": pair["student"][0], **options["student"]},
                    "optimizer": sgd,
                    "terms": toward,
                    "adapters": adapters,
                },
            },
            "sweep": {"seed": (0,) if smoke else (0, 1, 2)},
        },
        sort_keys=False,
    )
    if smoke:
        variants = {
            "teacher": {"roles": {"teacher": {"terms": {"ce": {}}}, "student": None}},
            "student": {"roles": {"teacher": {"from_variant": "teacher"}}},
        }
        config.variants = ConfigDict(variants, sort_keys=False)
    return config
