"""Detection on 93 + 30 photographs: a detector that fits them, and a narrower one that follows it.

The photographs (CC BY, credit by their flickr_url) come in COCO's layout as a folder or a zip, at
most 320 pixels wide; they are resized to 160. 84 are learned from, 9 are for choices, the 30 of
the val split are for tests; "test_train" judges the 84. A teacher is trained from scratch, then
frozen; students of half its width learn alone, with KD on the box logits, and with KD and ND on the
box feature (KD++), all for equally many steps, on the student's own regions. Three seeds; each
student follows the teacher of its own seed.

    python -m kdjax train --config=experiments/coco_local.py --workdir=runs/coco \
        --config.data.path=PATH/coco_ccby_320.zip

`coco_local.py:fit` is the teacher alone, one seed, six times as long, judged every 250 steps.

Expected time: 18 minutes on 2 free CPU cores; 5 for `:fit`.
Expected result: AP50 52 % on the photographs learned from for the teacher, 37, 35 and 36 % for
students alone, with KD and with KD++ (no difference beyond the seeds'), below 1 % on the test
photographs; 83 % for `:fit` (results/coco_local). 93 photographs support no claim about COCO.
"""

from ml_collections import ConfigDict

from experiments._coco import following, learning, tiny


def get_config(arg: str = "") -> ConfigDict:
    smoke, fit = arg == "smoke", arg == "fit"
    optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "clip_norm": 10.0,
        "schedule": {"name": "cosine", "warmup_steps": 0 if smoke else 50},
    }
    said = ConfigDict(
        {
            "num_steps": 2 if smoke else 3000 if fit else 800,
            "batch_size": 2 if smoke else 8,
            "eval_batch_size": 2 if smoke else 10,
            "log_every": 25,
            "eval_every": 250,
            "checkpoint_every": 300,
            "devices": 1,
            "members_per_program": 1,  # members in one program are compiled one by one anyway
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
                    "terms": learning(),
                },
                "student": {
                    "model": tiny(4) if smoke else network(8, 16),
                    "optimizer": dict(optimizer),
                    "terms": learning(),
                },
            },
            "variants": ConfigDict(
                {
                    "teacher": {"roles": {"student": None}},
                    "alone": {"roles": {"teacher": None}},
                    "kd": behind_teacher(1.0, 0.0),
                    "kdpp": behind_teacher(1.0, 1.0),
                },
                sort_keys=False,
            ),
            "sweep": {"seed": (0,) if smoke else (0, 1, 2)},
            "select": {"role": "student", "metric": "ap50"},
        },
        sort_keys=False,
    )
    if fit:
        del said.roles.student
        said.variants, said.sweep.seed, said.select.role = ConfigDict(), (0,), "teacher"
    return said


def network(width: int, pyramid_width: int) -> dict:
    """A ResNet-18 of few channels, with anchors and limits for pictures of 160 pixels."""
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


def behind_teacher(kd: float, nd: float) -> dict:
    """A variant: the teacher is frozen and judges the student's regions."""
    off = dict.fromkeys(learning())
    teacher = {"terms": off, "from_variant": "teacher", "regions": "student"}
    return {"roles": {"teacher": teacher, "student": {"terms": following(kd, nd)}}}
