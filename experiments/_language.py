"""Parts that experiments with language models share: the local pair, decoders, their optimizer."""


def decoder(width: int, layers: int, heads: int) -> dict:
    """Return a Llama whose vocabulary comes from the data; its head is its embedding."""
    ffn = 8 * width // 3 // 16 * 16
    sizes = {"width": width, "num_layers": layers, "num_heads": heads, "ffn_width": ffn}
    return {"name": "llama", **sizes, "tied": True}


def adamw(rate: float, warmup: int) -> dict:
    """Return AdamW with clip 1, a linear warm-up and cosine decay to 0."""
    return {
        "name": "adamw",
        "learning_rate": rate,
        "weight_decay": 0.1,
        "decay": "kernels",
        "clip_norm": 1.0,
        "schedule": {"warmup_steps": warmup},
    }


def _steps(smoke: bool) -> dict:
    return {"teacher": 2, "student": 2} if smoke else {"teacher": 2000, "student": 800}


def local_pair(smoke: bool, data: dict, teacher: dict | None = None) -> dict:
    """Return a config: a teacher of 4.9 M and a student of .9 M parameters, 3 seeds.

    Args:
        smoke: two steps of tiny networks on four files.
        data: keys of the data beyond those of the standard library's sources.
        teacher: further keys of the teacher.
    """
    steps = _steps(smoke)
    sizes = ((16, 1, 2), (8, 1, 2)) if smoke else ((256, 5, 4), (128, 2, 4))
    small = {"limit": 4, "max_length": 16} if smoke else {}
    held_out = 2 if smoke else 12
    roles = {
        role: {
            "model": decoder(*size),
            "optimizer": adamw(rate, steps[role] // 10),
            "terms": {"ce": {}},
        }
        for role, size, rate in zip(("teacher", "student"), sizes, (2e-3, 4e-3), strict=True)
    }
    roles["teacher"] |= teacher or {}
    return {
        "num_steps": steps["student"],
        "batch_size": 2 if smoke else 8,
        "eval_batch_size": 4 if smoke else 32,
        "eval_every": 400,
        "checkpoint_every": 200,
        "data": {
            "name": "lm",
            "path": "stdlib",
            "seed": 0,  # one batch for all members
            "validation": held_out,
            "test": held_out,
            **small,
            **data,
        },
        "roles": roles,
        "sweep": {"seed": (0, 1) if smoke else (0, 1, 2)},
    }


def teacher_first(smoke: bool) -> dict:
    """Return the variant that trains one teacher, for more steps than the students have."""
    return {
        "num_steps": _steps(smoke)["teacher"],
        "roles": {"student": None},
        "sweep": {"seed": (0,)},
    }
