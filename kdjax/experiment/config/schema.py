"""Every key of a config with its default: the whole vocabulary of an experiment."""

from typing import Any

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "num_steps": 1000,
    "batch_size": 128,
    "accumulate": 1,  # parts of a batch, gone through one after the other for one step
    "eval_batch_size": 256,
    "log_every": 50,
    "eval_every": 0,
    "checkpoint_every": 500,
    "grad_norm_every": 0,
    "keep_checkpoints": 2,
    "parallel": "pmap",
    "devices": 0,  # 0: all
    "members_per_program": 0,  # 0: as many as fit in memory
    "members_over_devices": True,
    "steps_per_dispatch": 0,  # 0: 1 on a CPU, 8 elsewhere
    "precision": "float32",
    "tensorboard": True,
    "ece_bins": 15,
    "data": {
        "name": "",
        "path": None,
        "validation": 0.1,
        "test": None,
        "split_seed": 0,
        "seed": None,  # of order and augmentation; None: of the run or the member
        "augment": "none",
        "mean": None,  # of each channel; None: of the training split
        "std": None,
        "image_size": None,
        "canvas": None,  # of resized_crop_flip: side of the square that holds a whole picture
        "eval_crop": None,  # image_size over the shorter side; .875 with resized_crop_flip, else 1
        "limit": None,
        "workers": 0,
        "on_device": "auto",
        "shape": None,
        "num_classes": None,
        # of pairs
        "tiles": 1,
        "layout": "grid",
        "tile_size": None,
        "characters": None,
        "pool": None,
        "eval_pairs": 2000,
        # of "text"
        "task": "",
        "form": "classify",
        "train_file": None,
        "vocabulary": None,
        "vocabulary_size": 8000,
        "tokenizer": None,
        "max_length": 128,
        "lengths": None,
        "window": 16,
        "too_long": "truncate",
        # of "coco"
        "max_boxes": 100,
        "unreadable": "refuse",
        "judge_train": False,
    },
    "roles": {},
    "variants": {},
    "sweep": {},
    "sweep_mode": "grid",
    "select": {"role": "student", "metric": None},  # None: the first metric of the task
}
ROLE: dict[str, Any] = {
    "model": {"name": ""},
    "input": "image",  # the entry of a batch that it reads; "view" is the second of a pair
    "checkpoint": None,
    "from_variant": None,
    "backbone": None,  # of a detector: an export of the classifier that its backbone starts as
    "regions": None,  # of a detector: the role whose regions it judges; None: its own
    "keep_layers": (),  # of the transformer that is read; () keeps all
    "remat": False,  # the backward pass computes norms and activations again: less memory
    "cache": False,  # of a frozen role: its outputs are computed once for each example
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "nesterov": False,
        "clip_norm": None,
        "decay": "all",
        "schedule": {"name": "cosine", "warmup_steps": 0, "boundaries": (), "factor": 0.1},
    },
    "terms": {},
    "between": (),  # two players: then the role is a critic
    "moves": "first",  # of a critic: which of the two learn from it; or "both"
    "pause": {"name": None, "watch": None},
    "adapters": {},
}
TERM: dict[str, Any] = {
    "toward": (),
    "weight": 1.0,
    "temperature_squared": None,
    "ramp": {"name": None, "steps": 0, "boundaries": (), "factors": ()},
    "anneal": {"to": None, "steps": 0},  # of the temperature
}
# One adapter, by its kind; 0, () and "" stand for what a config must say.
ADAPTERS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", "layer": "pooled", "width": 0},
    "norm_direction": {"kind": "norm_direction", "layer": "pooled", "width": 0, "dropout": 0.5},
    "fusion": {"kind": "fusion", "layers": (), "widths": (), "sizes": (), "mid": 0},
}
# Keys whose contents are not fixed here.
OPEN = ("variants", "sweep")
# Values that are None until somebody sets them, with the type they take.
OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "data.path": str,
    "data.seed": int,
    "data.validation": (int, float),
    "data.test": (int, float),
    "data.image_size": int,
    "data.canvas": int,
    "data.eval_crop": (int, float),
    "data.limit": int,
    "data.on_device": (str, bool),
    "data.shape": (tuple, list),
    "data.mean": (tuple, list),
    "data.std": (tuple, list),
    "data.num_classes": int,
    "data.tile_size": int,
    "data.characters": int,
    "data.pool": int,
    "data.train_file": str,
    "data.vocabulary": str,
    "data.tokenizer": str,
    "select.metric": str,
    "data.lengths": (tuple, list),
    "roles.*.checkpoint": str,
    "roles.*.from_variant": str,
    "roles.*.backbone": str,
    "roles.*.regions": str,
    "roles.*.optimizer.clip_norm": (int, float),
    "roles.*.pause.name": str,
    "roles.*.pause.watch": str,
    "roles.*.terms.*.toward": (str, tuple, list),
    "roles.*.terms.*.temperature_squared": bool,
    "roles.*.terms.*.ramp.name": str,
    "roles.*.terms.*.anneal.to": (int, float),
}
