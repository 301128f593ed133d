"""Every family of methods on all of Fashion-MNIST: offline, feature, transport and online ones.

Data: the 60,000 + 10,000 images of 28 x 28, 5,000 of the former for validation, no augmentation.
Teacher: a ResNet-8 (77,754 parameters); student: a CNN of three layers with a twelfth of them
(6,274). AdamW, cosine to 0, 4 epochs, one rate for all: the best of .001, .003 and .01 for both
networks alone, on validation after one epoch. In the offline rows the teacher is that
of "alone" with the same seed, frozen, its outputs computed once for each image. In the online rows
both networks are trained. Weights are the published ones, except where a row lists several; then
validation chooses. `fashion_all.py:alone,kd,bdkd` trains some rows, and
`fashion_all.py:hundredth,alone,kd,bdkd` trains them with a student of 745 parameters.

    apt-get install dataset-fashion-mnist
    python -m kdjax train --config=experiments/fashion_all.py \
        --config.data.path=/usr/share/datasets/fashion-mnist --workdir=runs/fashion

With jax 0.12 or newer on a CPU add --config.members_in_turn=True: it is faster.

Expected time: the offline rows without crd 75 minutes on one CPU core (crd alone 25), each online
row 17 minutes.

Expected result: docs/results.md (not crd, bdkd_emphasis, bdkd_temperature); alone 87.8 %, KD 86.7,
ND 87.5, SinKD 87.8, WDM 87.2, DML and SwitOKD 88.0, BD-KD 87.0.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._titles import titled

EPOCH = 429  # steps of 128 in 55,000 images
SEEDS = (0, 1, 2)
OPTIMIZER = {
    "name": "adamw",
    "learning_rate": 1e-2,
    "weight_decay": 1e-3,
    "schedule": {"name": "cosine"},
}
KD = {"ce": {"weight": 0.1}, "forward_kl": {"weight": 0.9, "temperature": 4.0}}
WIDE = {"own_layer": "wide"}  # the student's vector, mapped to the teacher's width
ND = {"norm_direction": {"weight": 2.0, **WIDE}}
WIDTHS = {"smoke": (4,), "hundredth": (3, 6, 8), "twelfth": (8, 16, 32)}  # of the student
WPC = {"name": "dependency", "width": 32, "radius": 8.0}


def get_config(arg: str = "") -> ConfigDict:
    words = [word for word in arg.split(",") if word]
    smoke = "smoke" in words
    rows = variants()
    unknown = sorted(set(words) - {"smoke", "hundredth", *rows})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; rows: {', '.join(rows)}")
    size = next((word for word in WIDTHS if word in words), "twelfth")
    names = [w for w in words if w in rows] or list(rows)
    if smoke:
        names = ["alone", "kd_wdm", "bdkd"]
    data: dict = {"name": "idx", "validation": 5000}
    if smoke:
        data = {"name": "synthetic", "shape": (28, 28, 1), "num_classes": 10, "validation": 0.2}
    teacher = {"name": "cnn", "widths": (4, 64)} if smoke else {"name": "resnet8"}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 4 * EPOCH,
            "batch_size": 16 if smoke else 128,
            "eval_every": EPOCH,
            "checkpoint_every": EPOCH,
            "data": data,
            "roles": {
                "teacher": {"model": teacher, "optimizer": OPTIMIZER, "terms": {"ce": {}}},
                "student": {
                    "model": {"name": "cnn", "widths": WIDTHS[size]},
                    "optimizer": OPTIMIZER,
                    "terms": {"ce": {}},
                },
            },
            "select": {"role": "student", "metric": "accuracy"},
        },
        sort_keys=False,
    )
    chosen = {name: rows[name] for name in names}
    for row in chosen.values():
        row["sweep"] = {"seed": (0,) if smoke else SEEDS, **row.get("sweep", {})}
    config.variants = ConfigDict(titled(chosen), allow_dotted_keys=True, sort_keys=False)
    return config


def variants() -> dict:
    """Return all rows: roles, and the swept values besides the seeds."""
    decoupled = {"decoupled_kl": {"alpha": 1.0, "beta": 2.0, "temperature": 4.0}}
    correlation = {"correlation": {"weight": 2.0, "temperature": 4.0}}
    transport = {"sinkhorn": {"weight": 8e-4, "temperature": 2.0, "epsilon": 0.1}}
    student = "roles.student.terms."
    contrast = critic("contrast", contrast={"weight": 0.8})
    wdm = critic(WPC, dependency={"weight": 0.1})
    weights = {"roles.critic.terms.dependency.weight": (0.1, 1.0)}
    return {
        "alone": {},
        "kd": offline(KD),
        "dkd": offline(decoupled),
        "dist": offline(correlation),
        "hint": offline({"feature_mse": {"weight": 10.0, **WIDE}}, wide=True),
        "crd": offline({}, contrast),
        "nd": offline(ND, wide=True),
        "kdpp": offline({"forward_kl": {"temperature": 4.0}, **ND}, wide=True),
        "dkdpp": offline({**decoupled, **ND}, wide=True),
        "distpp": offline({**correlation, **ND}, wide=True),
        "sinkd": {**offline(transport), "sweep": {student + "sinkhorn.weight": (8e-4, 8e-3, 8e-2)}},
        "wdm": {**offline({}, wdm), "sweep": weights},
        "kd_wdm": {**offline(KD, wdm), "sweep": weights},
        "dml": online("forward_kl", temperature=1.0),
        "kdcl": online("minimum_logit_kl", temperature=2.0, both=True),
        "switokd": switokd(),
        "bdkd": online("balanced_kl", temperature=2.0),
        "bdkd_emphasis": {
            "title": "BD-KD, other emphases",
            **online("balanced_kl", temperature=2.0),
            "sweep": {student + "balanced_kl.emphasis": (1.0, 3.0)},
        },
        "bdkd_temperature": {
            "title": "BD-KD, other temperatures",
            **online("balanced_kl", temperature=2.0),
            "sweep": {student + "balanced_kl.temperature": (1.0, 4.0)},
        },
        "bdkd_forward": {
            "title": "BD-KD, forward KL only",
            **online("forward_kl", temperature=2.0),
        },
        "bdkd_reverse": {
            "title": "BD-KD, reverse KL only",
            **online("reverse_kl", temperature=2.0),
        },
        "bdkd_fixed": {
            "title": "BD-KD, both KLs at 1:1",
            **online("weighted_kl", temperature=2.0),
        },
    }


def critic(model: str | dict, **terms: dict) -> dict:
    """Return a critic between the two networks' vectors."""
    model = {"name": model} if isinstance(model, str) else model
    return {
        "between": ("student", "teacher"),
        "model": model,
        "optimizer": OPTIMIZER,
        "terms": terms,
    }


def offline(terms: dict, critic: dict | None = None, *, wide: bool = False) -> dict:
    """Return a row with the frozen teacher of "alone"; `wide` adds the map to its width."""
    adapters = {"wide": {"kind": "linear", "layer": "pooled", "width": 64}} if wide else None
    row = toward_frozen(terms, source="alone", cache=True, adapters=adapters)
    if critic is not None:
        row["roles"]["critic"] = critic
    return row


def online(term: str, *, temperature: float, both: bool = False) -> dict:
    """Return a row in which both learn: the teacher by forward KL, or by `term` too if `both`."""
    back = {term if both else "forward_kl": {"toward": "student", "temperature": temperature}}
    return {
        "roles": {
            "teacher": {"terms": back},
            "student": {"terms": {term: {"toward": "teacher", "temperature": temperature}}},
        }
    }


def switokd() -> dict:
    """Return SwitOKD: mutual learning in which a teacher too far ahead pauses."""
    row = online("forward_kl", temperature=1.0)
    row["roles"]["teacher"]["pause"] = {"name": "switokd", "watch": "student"}
    return row
