"""Distillation between two vocabularies: ULD and Multi-Level-OT on the standard library's sources.

Data as in lm_local.py, in rows that hold the same text in the tokens of two vocabularies: 2,048 for
the student, 4,096 for the teacher (the role's `input` is second). A piece of text ends where both
tokenizations have a boundary, and is padded. The networks are those of lm_local.py.

    python -m kdjax train --config=experiments/lm_cross_tokenizer.py --workdir=runs/lm_cross

alone uses cross-entropy only. uld and multi_level_ot add their loss to it at the published weight
of 1.5, toward the frozen teacher of variant "teacher" with the same seed. Only bits per byte
compare networks of different vocabularies.

Expected time: about 50 minutes on 2 CPU cores, by the time of single steps; not run in full.

Expected result: not yet run.
"""

from ml_collections import ConfigDict

from experiments._language import adamw, decoder, toward_frozen
from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    steps = 2 if smoke else 600
    sizes = {"limit": 4, "bpe_size": 300, "second_bpe_size": 320, "max_length": 16}
    config = ConfigDict(
        {
            "num_steps": steps,
            "batch_size": 2 if smoke else 8,
            "eval_batch_size": 4 if smoke else 32,
            "eval_every": 300,
            "checkpoint_every": 300,
            "data": {
                "name": "lm",
                "path": "stdlib",
                "seed": 0,  # one batch for all members
                "packing": "pad",
                "validation": 2 if smoke else 12,
                "test": 2 if smoke else 12,
                **(sizes if smoke else {"bpe_size": 2048, "second_bpe_size": 4096}),
            },
            "roles": {
                "teacher": {
                    "input": "second",
                    "model": decoder(16, 1, 2) if smoke else decoder(256, 5, 4),
                    "optimizer": adamw(2e-3, steps // 10),
                    "terms": {"ce": {}},
                },
                "student": {
                    "model": decoder(8, 1, 2) if smoke else decoder(128, 2, 4),
                    "optimizer": adamw(4e-3, steps // 10),
                    "terms": {"ce": {}},
                },
            },
        },
        sort_keys=False,
    )
    config.variants = ConfigDict(titled(variants()), sort_keys=False)
    config.sweep = ConfigDict({"seed": (0, 1) if smoke else (0, 1, 2)})
    return config


def variants() -> dict:
    """Return the variants; both losses read all tokens of a piece, which few texts' ends close."""
    loss = {"toward": "teacher", "weight": 1.5, "skip_student_eos": False}
    return {
        "teacher": {"roles": {"student": None}},
        "alone": {"roles": {"teacher": None}},
        "uld": toward_frozen({"ce": {}, "universal_logit_distance": loss}),
        "multi_level_ot": toward_frozen({"ce": {}, "multi_level_transport": loss}),
    }
