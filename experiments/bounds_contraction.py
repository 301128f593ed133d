"""Contraction coefficients against depth and width at an equal number of weights.

Computes the contraction coefficients of dropout, DropConnect and Gaussian noise, and the
finite-space bounds that follow, for networks of at most 240 weights. Tiny networks of six weights
each are enumerated exactly for comparison.

    python -m kdjax study --config=experiments/bounds_contraction.py --out=runs/bounds_contraction

Expected time: 15 CPU seconds. Expected result: docs/bounds.md. Dropout's coefficient falls from 1
(one layer of 48) to .003 (32 layers of 2 and 3). DropConnect hardly contracts above width 2.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    deep = (2, 1, 1, 1, 1, 1)
    return ConfigDict(
        {
            "study": "contraction",
            "weights": 240,
            "inputs": 4,
            "depths": (1, 4) if smoke else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
            "widths": (1, 2) if smoke else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
            "drop": 0.5,
            "noise": 2.0,
            "levels": 2,
            "size": 1000,
            "label_information": 0.0,
            "tiny": ((2, 1, 1), (2, 1, 1)) if smoke else ((2, 2, 1), (2, 1, 2, 1), deep),
            "tiny_size": 1 if smoke else 4,
            "tiny_inverse_temperature": 8.0,
        },
        sort_keys=False,
    )
