"""Exact enumeration of one tiny learner: gen and the whole chain of bounds.

A network of sign units under the Gibbs posterior (or empirical risk minimisation, at an inverse
temperature of inf). Every data set, weight and representation is enumerated. The second command
changes the network:

    python -m kdjax study --config=experiments/bounds_laboratory.py --out=runs/laboratory
    python -m kdjax study --config=experiments/bounds_laboratory.py --out=runs/laboratory \
        --config.widths="(2, 1, 2, 1)" --config.size=3 --config.inverse_temperature=inf

Expected time: 15 CPU seconds, most of them imports. Expected result: gen .1972 below .2536,
.2714, .2837, .2878, .2952 and, of the coarse bounds, .97 to 1.02 (docs/bounds.md).
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(
        {
            "study": "laboratory",
            "widths": (1, 1) if arg == "smoke" else (2, 2, 1),
            "size": 2,
            "inverse_temperature": 4.0,
            "label_noise": 0.1,
            "drop": 0.2,
            "levels": (-1.0, 1.0),
        },
        sort_keys=False,
    )
