"""Parts that experiments with language models share: decoders, their optimizer, terms."""


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


def toward_frozen(terms: dict) -> dict:
    """Return a variant: these student terms and the frozen teacher with the same seed."""
    frozen = {"terms": {"ce": None}, "from_variant": "teacher"}
    return {"roles": {"teacher": frozen, "student": {"terms": terms}}}
