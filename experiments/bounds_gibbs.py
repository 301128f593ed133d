"""Gibbs algorithm by exact enumeration: gen and every bound against n and temperature.

A network of sign units (2-2-1, weights -1 and 1, dropout on the hidden layer), trained by the
Gibbs posterior on n examples of a noisy rule. All numbers are exact.

    python -m kdjax study --config=experiments/bounds_gibbs.py --out=runs/bounds_gibbs

Expected time: 15 CPU seconds. Expected result: docs/bounds.md. Every inequality holds; the
bound 2 s^2 a / n is 8 to 23 times gen, the information bounds about twice gen.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    return ConfigDict(
        {
            "study": "gibbs",
            "widths": (1, 1) if smoke else (2, 2, 1),
            "sizes": (1, 2) if smoke else (1, 2, 3, 4, 5),
            "size": 1 if smoke else 4,
            "temperatures": (1.0, 2.0) if smoke else (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
            "inverse_temperature": 4.0,
            "label_noise": 0.1,
            "drop": 0.5,
        },
        sort_keys=False,
    )
