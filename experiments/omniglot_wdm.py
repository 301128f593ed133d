"""Representation learning on Omniglot: CPC compared with Wasserstein predictive coding.

A view is an image of d tiles with one character each; every tile has its own alphabet. In the
second view every character is replaced by the next one of its alphabet, drawn by another writer.
The two views share exactly sum_i ln(size_i) nats. Two MLPs, one for each view, are trained to
match views of the same pair. Linear probes then measure how well each character can be predicted
from the first view's 64 features, on drawings of unseen writers.

    cpc          unconstrained critic and encoders: the baseline
    wpc_penalty  the same networks with a penalty on slopes above 1 in both images (lambda 10)
    wpc_spectral, wpc_bjorck    encoders and critic with 1-Lipschitz layers

    python -m kdjax train --config=experiments/omniglot_wdm.py:tiles=4 \
        --config.data.path=omniglot_8alphabets.npz --workdir=runs/omniglot/tiles=4
    python -m kdjax train --config=experiments/omniglot_wdm.py:DIGITS --workdir=runs/pairs_digits

The argument is a comma-separated list: DIGITS (scikit-learn's digits as every alphabet; needs no
file), tiles=4, batch=64, pool=1000 (a fixed number of pairs instead of an endless stream),
steps=1000, names of the variants to train (default all), and ablations. The ablations compare
wpc_penalty with a two-sided penalty (wpc_two_sided), a penalty at real or at false pairs
(wpc_joint, wpc_product), another lambda (wpc_lambda_1, wpc_lambda_100), a concatenated critic
(wpc_concat), and a penalty on the slope in the features alone (wpc_features).
benchmarks/dependency_figures.py draws the figures.

Every variant sweeps the learning rate (2 values x 3 seeds, one program), selected on validation.

Expected time: 5 minutes on 2 busy CPU cores. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._titles import titled

WIDTH, HIDDEN = 64, (64,)
RATES = (1e-3, 3e-3)
RADIUS = 8.0  # of a Lipschitz critic's feature ball; scores lie within RADIUS / sqrt 2
KNOWN = ("tiles", "batch", "pool", "steps")


def lipschitz(kind: str) -> dict:
    """Return a variant whose encoders and critic have 1-Lipschitz layers."""
    network = {"model": {"name": "lipschitz_mlp", "kind": kind}}
    critic = {"objective": "wpc", "kind": f"bilinear_{kind}", "bound": "ball"}
    return {"encoder_x": network, "encoder_y": network, "critic": {"model": critic}}


def penalised(penalty: float = 10.0, **options: object) -> dict:
    """Return WPC with an unconstrained critic and encoders and a penalty on the slope."""
    terms = {"dependency": {"penalty": penalty}}
    return {"critic": {"model": {"objective": "wpc", **options}, "terms": terms}}


MAIN = {
    "cpc": {},
    "wpc_penalty": penalised(),
    "wpc_spectral": lipschitz("spectral"),
    "wpc_bjorck": lipschitz("bjorck"),
}
ABLATIONS = {
    "wpc_two_sided": penalised(sides=2),
    "wpc_joint": penalised(at="joint"),
    "wpc_product": penalised(at="product"),
    "wpc_lambda_1": penalised(1.0),
    "wpc_lambda_100": penalised(100.0),
    "wpc_concat": penalised(kind="concat"),
    "wpc_features": penalised(metric="features", bound="sphere"),
}


def get_config(arg: str = "") -> ConfigDict:
    words = [word for word in arg.split(",") if word]
    smoke, drawn = "smoke" in words, "DIGITS" in words
    flags = ("smoke", "DIGITS", "ablations", *MAIN, *ABLATIONS)
    arguments = dict(word.partition("=")[::2] for word in words if word not in flags)
    if not set(arguments) <= set(KNOWN) or not all(value.isdigit() for value in arguments.values()):
        raise ValueError(
            f"{arg!r}: use {', '.join(flags)}, or whole numbers for {', '.join(KNOWN)}"
        )
    number = {key: int(value) for key, value in arguments.items()}
    data = {"name": "omniglot", "tile_size": 14, "validation": 0.15, "test": 0.15}
    if drawn:
        data |= {"name": "pairs_digits", "tile_size": 8}
    if smoke:
        data |= {"name": "pairs_synthetic", "tile_size": 4, "characters": 3, "eval_pairs": 32}
    tiles = number.get("tiles", 1 if smoke else 4)
    data |= {"tiles": tiles, **({"pool": number["pool"]} if "pool" in number else {})}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else number.get("steps", 1000),
            "batch_size": number.get("batch", 8 if smoke else 64),
            "log_every": 100,
            "checkpoint_every": 1000,
            "data": data,
            "roles": {
                "encoder_x": encoder("image", smoke),
                "encoder_y": encoder("view", smoke),
                "critic": {
                    "between": ("encoder_x", "encoder_y"),
                    "moves": "both",
                    "model": {
                        "name": "dependency",
                        "kind": "bilinear",
                        "objective": "cpc",
                        "metric": "inputs",
                        "bound": "none",
                        "radius": RADIUS,
                        "width": 8 if smoke else WIDTH,
                        "own_layer": "embedding",
                        "peer_layer": "embedding",
                    },
                    "optimizer": optimizer(),
                    "terms": {"dependency": {"weight": 1.0, "penalty": 10.0}},
                },
            },
            "select": {"role": "encoder_x", "metric": "probe_accuracy"},
        }
    )
    chosen = [word for word in words if word in {**MAIN, **ABLATIONS}]
    chosen += ["wpc_penalty", *ABLATIONS] if "ablations" in words else []
    rows = {**MAIN, **ABLATIONS}
    config.variants = ConfigDict(
        titled({name: {"roles": rows[name]} for name in chosen or MAIN}), sort_keys=False
    )
    config.sweep = ConfigDict(
        {
            "roles.*.optimizer.learning_rate": RATES[:1] if smoke else RATES,
            "seed": (0,) if smoke else (0, 1, 2),
        },
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def optimizer() -> dict:
    return {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.0}


def encoder(entry: str, smoke: bool) -> dict:
    """Return an MLP that encodes one view."""
    hidden, width = ((8,), 8) if smoke else (HIDDEN, WIDTH)
    return {
        "model": {"name": "mlp", "hidden": hidden, "embedding": width},
        "input": entry,
        "optimizer": optimizer(),
        "terms": {},
    }
