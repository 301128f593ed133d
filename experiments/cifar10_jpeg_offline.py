"""Offline distillation on 5,000 photographs: eleven methods with one trained teacher.

Teacher: a trained ResNet-56 (import its PyTorch weights first). Student: a ResNet-8 with a tenth
of the operations. Variants: alone, KD, DKD, DIST, hint (FitNet), AT, SP, ND alone, and KD++,
DKD++, DIST++ (the base with ND). The weights are those of the published tables for resnet56 ->
resnet20. As published, KD, DKD and DIST ramp up over the first twelfth of the run; ND does not.

    python -m kdjax import --model=resnet56 --weights=resnet56_cifar10_jpegft.npz \
        --mean=.485,.456,.406 --std=.229,.224,.225 --out=teachers/resnet56
    python -m kdjax train --config=experiments/cifar10_jpeg_offline.py \
        --config.data.path=cifar10_jpeg_5k.npz \
        --config.roles.teacher.checkpoint=teachers/resnet56 --workdir=runs/cifar10_offline

Every variant sweeps the learning rate (2 values x 3 seeds, one program), selected on validation.
All members share one order and one augmentation (`data.seed`), so the teacher runs once for all.
`cifar10_jpeg_offline.py:resnet20` uses a larger student; `...:kd,kdpp` trains some variants.

Expected time: an hour and a half on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._titles import titled

EPOCH = 54  # steps of 64 in 3,500 images
EPOCHS = 12
STUDENTS = ("resnet8", "resnet20")


def get_config(arg: str = "") -> ConfigDict:
    words = [word for word in arg.split(",") if word]
    smoke = "smoke" in words
    table = rows()
    unknown = sorted(set(words) - {"smoke", "alone", *STUDENTS, *table})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; rows: alone, {', '.join(table)}")
    network = next((word for word in words if word in STUDENTS), STUDENTS[0])
    chosen = [word for word in words if word in ("alone", *table)] or ["alone", *table]
    data = {"name": "npz", "validation": 500, "augment": "crop_flip"}
    data |= {"seed": 0}  # of order and augmentation, shared by all: the teacher runs once
    data |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # the teacher's
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10, "validation": 0.2}
    student = {"name": "cnn", "widths": (4, 6, 8)} if smoke else {"name": network}
    # a frozen teacher: no terms (the smoke test trains it, since it has no checkpoint)
    teacher_terms = {"ce": {}} if smoke else {}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * EPOCH,
            "batch_size": 16 if smoke else 64,
            "eval_every": 3 * EPOCH,
            "checkpoint_every": 3 * EPOCH,
            "data": data,
            "roles": {
                "teacher": {
                    "model": student if smoke else {"name": "resnet56", "shortcut": "pad"},
                    "optimizer": {"name": "sgd", "learning_rate": 0.1},
                    "terms": teacher_terms,
                },
                "student": {
                    "model": student,
                    "optimizer": {
                        "name": "sgd",
                        "learning_rate": 0.1,
                        "momentum": 0.9,
                        "nesterov": True,
                        "weight_decay": 5e-4,
                    },
                    "terms": {"ce": {}},
                },
            },
        }
    )
    variants: dict = {}
    for name in ("alone", "dkd", "sp") if smoke else chosen:
        terms = {
            term: {"toward": "teacher", **scalars} for term, scalars in table.get(name, {}).items()
        }
        variants[name] = {"roles": {"student": {"terms": terms}}}
        if name == "alone" and not smoke:
            variants[name] = {"roles": {"teacher": None}}
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    rates, seeds = ((0.1,), (0,)) if smoke else ((0.03, 0.1), (0, 1, 2))
    config.sweep = ConfigDict(
        {"roles.student.optimizer.learning_rate": rates, "seed": seeds},
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def rows() -> dict:
    """Return the student's terms besides cross-entropy (weights of resnet56 -> resnet20)."""
    ramp = {"ramp": {"name": "linear", "steps": EPOCHS * EPOCH // 12}}
    kd = {"forward_kl": {"temperature": 4.0, **ramp}}
    dkd = {"decoupled_kl": {"alpha": 1.0, "beta": 2.0, "temperature": 4.0, **ramp}}
    dist = {"correlation": {"weight": 2.0, "temperature": 4.0, **ramp}}
    return {
        "kd": kd,
        "dkd": dkd,
        "dist": dist,
        "hint": {"feature_mse": {"weight": 100.0, "own_layer": "stage2", "peer_layer": "stage2"}},
        "at": {"attention_transfer": {"weight": 1000.0}},
        "sp": {"similarity_preserving": {"weight": 3000.0}},
        "nd": {"norm_direction": {"weight": 2.0}},
        "kdpp": {**kd, "norm_direction": {"weight": 2.0}},
        "dkdpp": {
            "decoupled_kl": {**dkd["decoupled_kl"], "alpha": 2.5, "beta": 4.0},
            "norm_direction": {"weight": 3.5},
        },
        "distpp": {**dist, "norm_direction": {"weight": 1.0}},
    }
