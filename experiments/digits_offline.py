"""Offline distillation on digits from a frozen teacher's logits, features and class means.

Data, networks and budget of digits_compare.py. The teacher is trained first (variant "alone", 5
learning rates x 10 seeds) and frozen; each student is trained from the teacher with the same seed.
Variants: KD, DKD, DIST, hint, ND (feature norm and direction) and KD++ (KD with ND). Features have
16 and 128 channels, so hint and ND need a linear adapter, which is trained with the student and
dropped at export. The teacher's outputs are computed once for each image.

    python -m kdjax train --config=experiments/digits_offline.py --workdir=runs/digits_offline

Expected time: 35 seconds on 2 CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "roles": {
                "teacher": {
                    "model": {"name": "mlp", "hidden": (128, 128)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
                "student": {
                    "model": {"name": "mlp", "hidden": (16,)},
                    "optimizer": dict(optimizer),
                    "terms": {"ce": {}},
                },
            },
        }
    )
    variants = {"alone": {}, **{name: distill(*row) for name, row in rows().items()}}
    config.variants = ConfigDict(titled(variants), sort_keys=False)
    rates = (0.1,) if smoke else (0.01, 0.03, 0.1, 0.3, 1.0)
    config.sweep = ConfigDict(
        {
            "roles.*.optimizer.learning_rate": rates,
            "seed": (0,) if smoke else tuple(range(10)),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def rows() -> dict:
    """Return the student's terms by variant, and whether they need an adapter."""
    kd = {"ce": {"weight": 0.1}, "forward_kl": {"weight": 0.9, "temperature": 4.0}}
    through = {"own_layer": "wide"}
    nd = {"norm_direction": {"weight": 2.0, **through}}
    return {
        "kd": (kd, False),
        "dkd": ({"decoupled_kl": {"alpha": 1.0, "beta": 2.0, "temperature": 4.0}}, False),
        "dist": ({"correlation": {"weight": 2.0, "temperature": 4.0}}, False),
        "hint": ({"feature_mse": {"weight": 10.0, **through}}, True),
        "nd": (nd, True),
        "kdpp": ({"forward_kl": {"temperature": 4.0}, **nd}, True),
    }


def distill(terms: dict, adapter: bool) -> dict:
    """Return a variant: the frozen, cached teacher of "alone" and the student's terms toward it."""
    wide = {"wide": {"kind": "linear", "layer": "pooled", "width": 128}} if adapter else None
    return toward_frozen(terms, source="alone", cache=True, adapters=wide)
