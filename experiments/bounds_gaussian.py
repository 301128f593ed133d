"""Gaussian classification: bounds and the true gen against layer, samples, rank and norm.

The network has random linear layers that do not depend on the data; its head is the mean
estimator. The hierarchical KL and Wasserstein bounds have closed forms. The generalization error
(gen) of the 0-1 and the ramp loss is a Monte Carlo estimate over data sets, with standard errors.

    python -m kdjax study --config=experiments/bounds_gaussian.py --out=runs/bounds_gaussian

Expected time: 15 CPU seconds. Expected result: docs/bounds.md. Every gen is below every bound. The
KL bound is 2.6 times gen at n = 50 and ten times gen at n = 1,000, where gen falls as 1/n.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    return ConfigDict(
        {
            "study": "gaussian",
            "seed": 0,
            "widths": (6, 4, 2) if smoke else (64, 64, 32, 16, 8),
            "size": 50,
            "signal": 1.0,
            "deviation": 1.0,
            "sizes": (5, 20) if smoke else (5, 10, 20, 50, 100, 200, 500, 1000),
            "ranks": (1, 2) if smoke else (1, 2, 4, 8, 16, 32, 64),
            "gains": (0.5, 1.0) if smoke else (0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
            "draws": 200 if smoke else 20000,
        },
        sort_keys=False,
    )
