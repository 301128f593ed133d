"""Wasserstein dependency on digits, offline and online, compared with KD and ND.

Data, networks and budget of digits_offline.py. The teacher is trained first (variant "alone") and
frozen; each student is trained from the teacher with the same seed. wdm adds .1 x the dependency
(WPC objective, a bilinear critic with orthonormal layers of width 32, features on a sphere of
radius 8) between the student's and the teacher's hidden features. kd_wdm adds it to KD. cpc uses
the same critic without a constraint; dual uses the dual objective. bdkd_wdm is co-training: BD-KD
with the dependency, both networks trained. The critic is trained with the student, at the
student's learning rate.

    python -m kdjax train --config=experiments/digits_wdm_kd.py --workdir=runs/digits_wdm

Expected time: three minutes on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._titles import titled

OPTIMIZER = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
KD = {"ce": {"weight": 0.1}, "forward_kl": {"weight": 0.9, "temperature": 4.0}}
CRITIC = {"name": "dependency", "width": 32, "radius": 8.0}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 250,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "select": {"metric": "accuracy"},
            "roles": {
                "teacher": player((128, 128)),
                "student": player((16,)),
            },
        }
    )
    nd = {"norm_direction": {"weight": 2.0, "own_layer": "to_teacher"}}
    unbound = {**CRITIC, "kind": "bilinear", "objective": "cpc"}
    variants = {
        "alone": {},
        "kd": distill(KD),
        "nd": distill(nd, adapt=True),
        "wdm": distill({}, CRITIC),
        "dual": distill({}, {**CRITIC, "objective": "dual"}),
        "cpc": distill({}, unbound),
        "kd_wdm": distill(KD, CRITIC),
        "bdkd": co_training(),
        "bdkd_wdm": co_training(CRITIC),
    }
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    if smoke:
        for name in ("nd", "dual", "cpc", "bdkd"):
            del config.variants[name]
    config.sweep = ConfigDict(
        {
            "roles.*.optimizer.learning_rate": (0.1,) if smoke else (0.01, 0.03, 0.1, 0.3),
            "seed": (0,) if smoke else tuple(range(5)),
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


def distill(terms: dict, critic: dict | None = None, *, adapt: bool = False) -> dict:
    """Return a variant: the frozen, cached teacher of "alone" and the student's terms toward it."""
    toward = {
        name: scalars if name == "ce" else {"toward": "teacher", **scalars}
        for name, scalars in terms.items()
    }
    student: dict = {"terms": toward}
    if adapt:
        student["adapters"] = {"to_teacher": {"kind": "linear", "layer": "pooled", "width": 128}}
    roles: dict = {
        "teacher": {"terms": {"ce": None}, "from_variant": "alone", "cache": True},
        "student": student,
    }
    return {"roles": {**roles, **critic_role(critic)}}


def co_training(critic: dict | None = None) -> dict:
    """Return BD-KD's terms for both networks, and the critic."""
    teacher = {"forward_kl": {"toward": "student", "weight": 1.0, "temperature": 2.0}}
    student = {"balanced_kl": {"toward": "teacher", "weight": 1.0, "temperature": 2.0}}
    roles = {"teacher": {"terms": teacher}, "student": {"terms": student}}
    return {"roles": {**roles, **critic_role(critic)}}


def critic_role(critic: dict | None) -> dict:
    """Return the critic's role, or an empty mapping without a critic."""
    if critic is None:
        return {}
    return {
        "wdm": {
            "between": ("student", "teacher"),
            "model": dict(critic),
            "optimizer": dict(OPTIMIZER),
            "terms": {"dependency": {"weight": 0.1}},
        }
    }
