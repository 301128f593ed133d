"""All methods of the CIFAR-100 tables on 5,000 photographs, at three weights each.

Teacher: a trained ResNet-56 (import its PyTorch weights first). Student: a ResNet-8 with a tenth
of the operations. Each method runs at its published weight, a third of it and three times it, for
three seeds; validation chooses the weight. All members of a row share one order and one
augmentation (`data.seed`), so the teacher runs once for all nine. FSP, AB and FT first train for
a sixth of the steps on their own term. `cifar10_jpeg_table.py:kd,vid` trains some rows.

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar10_jpegft.npz \
        --mean=.485,.456,.406 --std=.229,.224,.225 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar10_jpeg_table.py \
        --config.data.path=cifar10_jpeg_5k.npz \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar10_table

Expected time: about 3 hours on 2 CPU cores (6.5 minutes a row). Expected result: docs/results.md.
Alone the student has 39.0 % (sd 0.7 over 3 seeds), with OFD 48.0 (2.4), FitNets 46.4 (0.7), SRRL
43.9 (0.3), CAT-KD 43.1 (1.1), NST 42.7 (1.5), KD 38.6 (0.9); FSP, AB, FT, DKD and MLLD are behind.
"""

from ml_collections import ConfigDict

from experiments._methods import METHODS, following, roles_of, stages_of
from experiments._titles import titled

EPOCH = 54  # steps of 64 in 3,500 images
EPOCHS = 6
FACTORS = (1 / 3, 1.0, 3.0)
SEEDS = (0, 1, 2)
UNSCALED = ("ce", "view_cross_entropy", "paraphrase")
OPTIMIZER = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
WIDTHS = (16, 32, 64)


def get_config(arg: str = "") -> ConfigDict:
    words = [word for word in arg.split(",") if word]
    smoke = "smoke" in words
    unknown = sorted(set(words) - {"smoke", "alone", *METHODS})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; rows: alone, {', '.join(METHODS)}")
    rows = ["ofd"] if smoke else [w for w in words if w in METHODS] or list(METHODS)
    data = {"name": "npz", "validation": 500, "augment": "crop_flip", "seed": 0}
    data |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # the teacher's
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10, "validation": 0.2}
    # a frozen teacher: no terms (the smoke test trains it, since it has no checkpoint)
    teacher = {"model": {"name": "resnet56", "shortcut": "pad"}, "terms": {}}
    student = {"name": "resnet8"}
    if smoke:
        student = {"name": "cnn", "widths": WIDTHS}
        teacher = {"model": student, "optimizer": OPTIMIZER, "terms": {"ce": {}}}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * EPOCH,
            "batch_size": 16 if smoke else 64,
            "eval_every": EPOCHS * EPOCH,
            "data": data,
            "sweep_mode": "zip",
            "roles": {
                "teacher": teacher,
                "student": {"model": student, "optimizer": OPTIMIZER, "terms": {"ce": {}}},
            },
        }
    )
    layers = stages_of("bn{}" if smoke else "layer{}_*/bn2", WIDTHS, same=True)
    variants: dict = {"alone": {"roles": {"teacher": None}, "sweep": {"seed": SEEDS}}}
    for name in rows:
        roles = roles_of(following(name, layers, warm=config.num_steps // 6), OPTIMIZER)
        variants[name] = {"roles": roles, "sweep": weights_by_factor(roles)}
    config.variants = ConfigDict(titled(variants), allow_dotted_keys=True, sort_keys=False)
    return config


def weights_by_factor(roles: dict) -> dict:
    """Return a zipped sweep: every seed at every factor of all weights but cross-entropy's."""
    sweep: dict = {"seed": SEEDS * len(FACTORS)}
    for role, table in roles.items():
        for term, scalars in table["terms"].items():
            if term not in UNSCALED:
                weight = scalars.get("weight", 1.0)
                values = tuple(weight * factor for factor in FACTORS for _ in SEEDS)
                sweep[f"roles.{role}.terms.{term}.weight"] = values
    return sweep
