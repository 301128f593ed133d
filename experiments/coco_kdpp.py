"""KD++ on COCO: a detector is distilled from a frozen, deeper one on its own sampled regions.

KD on the box logits (81 classes with background, T = 1) and ND on the 1024-d feature of the box
head, with the teacher's class means of one pass over the training set; (kd, nd) are (1, 1.5) for
R101-R18, (1, 1) for R101-R50 and R50-MV2. SGD, batch 8, learning rate .01, x.1 after 120,000 and
160,000 of 180,000 steps, as in Wang et al. (arXiv 2305.17007). Deviations: images are resized to
a longer side of 1,024 on a square, not to a shorter side of 800; both detectors use the same loss
settings. Batch norm, the stem and stage 1 are frozen at ImageNet weights. The teacher is exported
from a run of :teacher101 or :teacher50.

    python -m kdjax train --config=experiments/coco_kdpp.py:R101-R18 --workdir=runs/coco_kdpp \
        --config.data.path=COCO --config.roles.teacher.checkpoint=TEACHER \
        --config.roles.student.backbone=WEIGHTS

COCO is the folder with annotations/ and the images of 2017; WEIGHTS is a folder from `import`.
Expected time: not yet run (days on one accelerator). Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments._coco import distillation_terms, tiny, training_terms

PAIRS = {  # name -> teacher, student, weights of kd and nd
    "R101-R18": ("ResNet101", "ResNet18", 1.0, 1.5),
    "R101-R50": ("ResNet101", "ResNet50", 1.0, 1.0),
    "R50-MV2": ("ResNet50", "MobileNetV2", 1.0, 1.0),
}
TEACHERS = {"teacher101": "ResNet101", "teacher50": "ResNet50"}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    name = "R101-R18" if arg in ("", "smoke") else arg
    if name not in (*PAIRS, *TEACHERS):
        raise ValueError(f"no pair {arg!r}; there are {', '.join((*PAIRS, *TEACHERS))}")
    optimizer = {
        "name": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": {
            "name": "step",
            "boundaries": (120_000, 160_000),
            "warmup_steps": 0 if smoke else 1000,
        },
    }
    config = {
        "num_steps": 2 if smoke else 180_000,
        "batch_size": 2 if smoke else 8,
        "eval_batch_size": 2 if smoke else 8,
        "eval_every": 0 if smoke else 20_000,
        "checkpoint_every": 5000,
        "data": {
            "name": "coco",
            "image_size": 64 if smoke else 1024,
            "validation": 2 if smoke else 2000,
            "augment": "flip",
            "mean": (0.485, 0.456, 0.406),  # normalisation of the backbones
            "std": (0.229, 0.224, 0.225),
            "max_boxes": 8 if smoke else 100,
            "workers": 0 if smoke else 8,
        },
        "sweep": {"seed": (0,)},
        "select": {"role": "student", "metric": "ap"},
    }
    make = (lambda backbone: tiny(4)) if smoke else network
    if name in TEACHERS:
        teacher = _role(make(TEACHERS[name]), optimizer, training_terms())
        return ConfigDict({**config, "roles": {"student": teacher}}, sort_keys=False)
    of_teacher, of_student, kd, nd = PAIRS[name]
    frozen = _role(make(of_teacher), optimizer, {})
    frozen["regions"] = "student"
    student = _role(make(of_student), optimizer, {**training_terms(), **distillation_terms(kd, nd)})
    config["roles"] = {"teacher": frozen, "student": student}
    if smoke:
        first = {"teacher": {"terms": training_terms(), "regions": None}, "student": None}
        second = {"teacher": {"from_variant": "teacher"}}
        rows = {"teacher": {"roles": first}, "student": {"roles": second}}
        config["variants"] = ConfigDict(rows, sort_keys=False)
    return ConfigDict(config, sort_keys=False)


def network(backbone: str) -> dict:
    """Return the usual COCO detector; its sizes are the defaults of `models.faster_rcnn`."""
    return {
        "name": "faster_rcnn",
        "backbone": backbone,
        "frozen_norm": True,
        "frozen_stages": 2,
    }


def _role(model: dict, optimizer: dict, terms: dict) -> dict:
    return {"model": model, "optimizer": dict(optimizer), "terms": terms}
