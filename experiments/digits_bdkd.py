"""BD-KD on digits: a wide and a narrow network are trained together in one run.

Data: the 1,797 real 8 x 8 digits of scikit-learn. Teacher: an MLP of 26,122 parameters; student:
an MLP of 1,210. The student minimises CE + T^2 (weights of the entropy gap x forward and reverse
KL), the teacher CE + T^2 KL toward the student. BD-KD is a reconstruction (third_party_notes.md).

    python -m kdjax train --config=experiments/digits_bdkd.py --workdir=runs/digits_bdkd
    python -m kdjax train --config=experiments/digits_bdkd.py --workdir=runs/hot \
        --config.roles.student.terms.balanced_kl.temperature=4

Expected time: 20 seconds on 2 CPU cores. Expected result: student accuracy of about .96 on test
(one seed; the comparison over five is digits_compare.py).
"""

from ml_collections import ConfigDict

from experiments import _bdkd


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    return ConfigDict(
        {
            "num_steps": 2 if smoke else 1000,
            "batch_size": 64,
            "eval_every": 100,
            "grad_norm_every": 100,
            "data": {"name": "digits", "validation": 0.2, "test": 0.25},
            "roles": _bdkd.roles(
                {"model": {"name": "mlp", "hidden": (128, 128)}, "optimizer": dict(optimizer)},
                {"model": {"name": "mlp", "hidden": (16,)}, "optimizer": dict(optimizer)},
            ),
        },
        sort_keys=False,
    )
