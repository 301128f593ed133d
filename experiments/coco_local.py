"""Detection on 93 + 30 photographs: a teacher, and narrower students distilled from it.

The photographs (CC BY, credit by their flickr_url) come in COCO's layout as a folder or a zip, at
most 320 pixels wide; they are resized to 160. 84 are for training, 9 for validation, and the 30 of
the val split for test; the split "test_train" evaluates the 84. A teacher is trained from scratch,
then frozen. Students of half its width are trained alone, with KD on the box logits, and with KD
and ND on the box feature (KD++), for the same number of steps, on the student's own regions. Three
seeds; each student is trained from the teacher with the same seed.

    python -m kdjax train --config=experiments/coco_local.py --workdir=runs/coco \
        --config.data.path=PATH/coco_ccby_320.zip

`coco_local.py:fit` trains one teacher alone, six times as long, and evaluates every 250 steps.

Expected time: 18 minutes on 2 free CPU cores; 5 for `:fit`.
Expected result: AP50 on the training photographs is 52 % for the teacher and 37, 35 and 36 % for
students alone, with KD and with KD++ (the differences are within the seeds' spread). It is below
1 % on the test photographs, and 83 % on the training photographs for `:fit` (results/coco_local).
93 photographs support no claim about COCO.
"""

from ml_collections import ConfigDict

from experiments._coco import distillation_terms, tiny, training_terms
from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke, fit = arg == "smoke", arg == "fit"
    optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "clip_norm": 10.0,
        "schedule": {"name": "cosine", "warmup_steps": 0 if smoke else 50},
    }
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 3000 if fit else 800,
            "batch_size": 2 if smoke else 8,
            "eval_batch_size": 2 if smoke else 10,
            "log_every": 25,
            "eval_every": 250,
            "checkpoint_every": 300,
            "devices": 1,
            "members_per_program": 1,  # members of one program would be compiled one by one
            "data": {
                "name": "coco",
                "image_size": 64 if smoke else 160,
                "validation": 2 if smoke else 9,
                "augment": "flip",
                "max_boxes": 8 if smoke else 48,
                "judge_train": True,
            },
            "roles": {
                "teacher": {
                    "model": tiny(8) if smoke else network(16, 32),
                    "optimizer": dict(optimizer),
                    "terms": training_terms(),
                },
                "student": {
                    "model": tiny(4) if smoke else network(8, 16),
                    "optimizer": dict(optimizer),
                    "terms": training_terms(),
                },
            },
            "variants": ConfigDict(
                titled(
                    {
                        "teacher": {"roles": {"student": None}},
                        "alone": {"roles": {"teacher": None}},
                        "kd": distill(1.0, 0.0),
                        "kdpp": distill(1.0, 1.0),
                    }
                ),
                sort_keys=False,
            ),
            "sweep": {"seed": (0,) if smoke else (0, 1, 2)},
            "select": {"role": "student", "metric": "ap50"},
        },
        sort_keys=False,
    )
    if fit:
        del config.roles.student
        config.variants, config.sweep.seed, config.select.role = ConfigDict(), (0,), "teacher"
    return config


def network(width: int, pyramid_width: int) -> dict:
    """Return a narrow ResNet-18 detector with anchors and limits for images of 160 pixels."""
    return {
        "name": "faster_rcnn",
        "backbone": "ResNet18",
        "backbone_options": {"width": width},
        "pyramid_width": pyramid_width,
        "box_width": 256,
        "anchor_sizes": (8, 16, 32, 64, 128),
        "canonical": 56.0,  # 224 of about 640 pixels
        "limits": {
            "before": 200,
            "proposals": 100,
            "anchors": 64,
            "regions": 32,
            "detections": 50,
            "candidates": 400,
        },
    }


def distill(kd: float, nd: float) -> dict:
    """Return a variant: the teacher is frozen and evaluated on the student's regions."""
    off = dict.fromkeys(training_terms())
    teacher = {"terms": off, "from_variant": "teacher", "regions": "student"}
    return {"roles": {"teacher": teacher, "student": {"terms": distillation_terms(kd, nd)}}}
