"""Representations by dependency: CPC against Wasserstein predictive coding on drawn characters.

Two views of d characters, one a tile, each of an alphabet of its own: in the second view every
character is the next one of its alphabet, drawn by somebody else. They share exactly sum_i
ln(size_i) nats. Two perceptrons, one a view, learn to tell which views belong together; linear
probes then say how well each character can be read off the first one's 64 numbers, in the
handwriting of drawers that nobody has seen.

    cpc          any critic, any encoder: the baseline
    wpc_penalty  the same networks, the slope in both images penalised beyond 1 (lambda 10)
    wpc_spectral, wpc_bjorck    encoders and critic whose layers are 1-Lipschitz

    python -m kdjax train --config=experiments/omniglot_wdm.py:tiles=4 \
        --config.data.path=omniglot_8alphabets.npz --workdir=runs/omniglot/tiles=4
    python -m kdjax train --config=experiments/omniglot_wdm.py:DIGITS --workdir=runs/pairs_digits

The words after the colon, with commas between: DIGITS (scikit-learn's digits as every alphabet; no
file), tiles=4, batch=64, pool=1000 (so many pairs instead of an endless stream), steps=1000, names
of variants, to train these alone, and ablations: wpc_penalty beside itself with the penalty on both
sides (wpc_two_sided), at real or at false pairs (wpc_joint, wpc_product), with another lambda
(wpc_lambda_1, wpc_lambda_100), with a concatenated critic (wpc_concat), and with the penalty on the
slope in the features alone (wpc_features). For a figure see benchmarks/dependency_figures.py.

Every variant sweeps the learning rate (2 values x 3 seeds, one program); validation chooses.

Expected time: 5 minutes on 2 CPU cores, beside other work. Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

WIDTH, HIDDEN = 64, (64,)
RATES = (1e-3, 3e-3)
RADIUS = 8.0  # of the ball of a Lipschitz critic's features; its scores lie within RADIUS / sqrt 2
KNOWN = ("tiles", "batch", "pool", "steps")


def lipschitz(kind: str) -> dict:
    """What a variant changes: layers of the encoders and of the critic that cannot stretch."""
    network = {"model": {"name": "lipschitz_mlp", "kind": kind}}
    critic = {"objective": "wpc", "kind": f"bilinear_{kind}", "bound": "ball"}
    return {"encoder_x": network, "encoder_y": network, "critic": {"model": critic}}


def penalised(penalty: float = 10.0, **options: object) -> dict:
    """WPC with a plain critic and encoders, the slope penalised."""
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
    said = dict(word.partition("=")[::2] for word in words if word not in flags)
    if not set(said) <= set(KNOWN) or not all(value.isdigit() for value in said.values()):
        raise ValueError(
            f"{arg!r}: use {', '.join(flags)}, or whole numbers for {', '.join(KNOWN)}"
        )
    number = {key: int(value) for key, value in said.items()}
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
        {name: {"roles": rows[name]} for name in chosen or MAIN}, sort_keys=False
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
    """A perceptron that reads one view."""
    hidden, width = ((8,), 8) if smoke else (HIDDEN, WIDTH)
    return {
        "model": {"name": "mlp", "hidden": hidden, "embedding": width},
        "input": entry,
        "optimizer": optimizer(),
        "terms": {},
    }
