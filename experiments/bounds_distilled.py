"""Bounds of distilled students: funnel layer, and correlation of the bound with the loss gap.

Five methods on digits (alone, KD, DML, BD-KD, ND). Each is one vmapped program of 36 students: 3
learning rates x 2 weight decays x 6 seeds. `train` trains them. `study` trains them in OUT/run,
measures the bound at every layer of every student, and correlates the bound and other quantities
with the measured loss gap. Confidence intervals resample whole settings (method, rate, decay),
because the seeds of one setting are similar.

    python -m kdjax study --config=experiments/bounds_distilled.py --out=runs/bounds_distilled
    python -m kdjax train --config=experiments/bounds_distilled.py --workdir=runs/bounds_students

Expected time: two minutes of CPU time. Expected result: docs/bounds.md. The bound and the gap have
a Spearman correlation of .79 [.68, .84] over 180 students, and .09 [-.06, .29] when the range of
the logits is controlled for. The funnel layer is the logits for every student.
"""

from ml_collections import ConfigDict

from experiments._titles import titled

OPTIMIZER = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "log_every": 100,
            "checkpoint_every": 1000,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "select": {"metric": "accuracy"},
            "roles": {"teacher": player((128, 128)), "student": player((16,))},
        }
    )
    config.variants = ConfigDict(titled(variants()), sort_keys=False)
    config.sweep = ConfigDict(
        {
            "roles.*.optimizer.learning_rate": (0.1,) if smoke else (0.01, 0.03, 0.1),
            "roles.student.optimizer.weight_decay": (5e-4,) if smoke else (5e-4, 1e-2),
            "seed": (0, 1) if smoke else tuple(range(6)),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def player(hidden: tuple[int, ...]) -> dict:
    """Return an MLP trained on the labels."""
    return {
        "model": {"name": "mlp", "hidden": hidden},
        "optimizer": dict(OPTIMIZER),
        "terms": {"ce": {}},
    }


def variants() -> dict:
    """Return the variants: the student's terms, and whether the teacher is trained with it."""
    frozen = {"terms": {"ce": None}, "from_variant": "alone", "cache": True}
    nd = {"weight": 2.0, "toward": "teacher", "own_layer": "wide"}
    wide = {"wide": {"kind": "linear", "layer": "pooled", "width": 128}}
    kd = {
        "ce": {"weight": 0.1},
        "forward_kl": {"toward": "teacher", "weight": 0.9, "temperature": 4.0},
    }
    return {
        "alone": {},
        "kd": {"roles": {"teacher": frozen, "student": {"terms": kd}}},
        "dml": {"roles": co_training("forward_kl", 1.0)},
        "bdkd": {"roles": co_training("balanced_kl", 2.0)},
        "nd": {
            "roles": {
                "teacher": frozen,
                "student": {"terms": {"norm_direction": nd}, "adapters": wide},
            }
        },
    }


def co_training(term: str, temperature: float) -> dict:
    """Return a variant that trains both: the student with `term`, the teacher with forward KL."""
    back = {"toward": "student", "weight": 1.0, "temperature": temperature}
    there = {"toward": "teacher", "weight": 1.0, "temperature": temperature}
    return {"teacher": {"terms": {"forward_kl": back}}, "student": {"terms": {term: there}}}
