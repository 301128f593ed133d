"""Wasserstein dependency as a distillation term on 5,000 photographs, compared with KD and ND.

Data, networks and budget of cifar10_jpeg_compare.py. The teacher is trained first (variant
"alone") and frozen; each student is trained from the teacher with the same seed. kd: .1 CE + .9
T^2 KL at T = 4. nd: ND alone, through a linear adapter. wdm: CE and .1 x the dependency (WPC
objective, a bilinear critic with orthonormal layers of width 32, features on a sphere of radius 8)
between both networks' pooled features. kd_wdm: KD and the dependency.

    python -m kdjax train --config=experiments/cifar10_jpeg_wdm_kd.py \
        --config.data.path=cifar10_jpeg_5k.npz --workdir=runs/cifar10_wdm

Every variant sweeps the learning rate (2 values x 3 seeds, one program), selected on validation.

Expected time: about 20 minutes on 2 CPU cores, estimated from cifar10_jpeg_compare.py.
Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._titles import titled

OPTIMIZER = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
KD = {"ce": {"weight": 0.1}, "forward_kl": {"weight": 0.9, "temperature": 4.0}}
ND = {"norm_direction": {"weight": 2.0, "own_layer": "to_teacher"}}
TEACHER, STUDENT = (24, 48, 96), (10, 20, 40)  # widths


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    data = {"name": "npz", "validation": 500, "augment": "crop_flip"}
    if smoke:
        data |= {"name": "synthetic", "shape": (32, 32, 3), "num_classes": 10, "validation": 0.2}
    widths = {"teacher": (4, 8), "student": (4,)} if smoke else {}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 810,  # 30 epochs of 3,500 images
            "batch_size": 16 if smoke else 128,
            "eval_every": 162,
            "checkpoint_every": 162,
            "data": data,
            "select": {"metric": "accuracy"},
            "roles": {
                "teacher": player(widths.get("teacher", TEACHER)),
                "student": player(widths.get("student", STUDENT)),
            },
        }
    )
    top = widths.get("teacher", TEACHER)[-1]
    variants = {
        "alone": {},
        "kd": distill(KD),
        "nd": distill(ND, width=top),
        "wdm": distill({}, critic=True),
        "kd_wdm": distill(KD, critic=True),
    }
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    config.sweep = ConfigDict(
        {
            "roles.*.optimizer.learning_rate": (0.1,) if smoke else (0.1, 0.3),
            "seed": (0,) if smoke else (0, 1, 2),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def player(widths: tuple[int, ...]) -> dict:
    """Return a small convolutional network trained on the labels."""
    return {
        "model": {"name": "cnn", "widths": widths},
        "optimizer": dict(OPTIMIZER),
        "terms": {"ce": {}},
    }


def distill(terms: dict, *, width: int | None = None, critic: bool = False) -> dict:
    """Return a variant: the frozen teacher of "alone", and the student's terms toward it.

    `width` is that of an adapter to the teacher's features.
    """
    adapters = None
    if width is not None:
        adapters = {"to_teacher": {"kind": "linear", "layer": "pooled", "width": width}}
    row = toward_frozen(terms, source="alone", adapters=adapters)
    if critic:
        row["roles"]["wdm"] = {
            "between": ("student", "teacher"),
            "model": {"name": "dependency", "width": 32, "radius": 8.0},
            "optimizer": dict(OPTIMIZER),
            "terms": {"dependency": {"weight": 0.1}},
        }
    return row
