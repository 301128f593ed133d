"""Distillation between two vocabularies: ULD and Multi-Level-OT on the standard library's sources.

Data as in lm_local.py, in rows that hold the same text in the tokens of two vocabularies: 2,048 for
the student, 4,096 for the teacher (the role's `input` is second). A piece of text ends where both
tokenizations have a boundary, and is padded. The networks are those of lm_local.py.

    python -m kdjax train --config=experiments/lm_cross_tokenizer.py --workdir=runs/lm_cross

alone uses cross-entropy only. uld and multi_level_ot add their loss to it at the published weight
of 1.5, toward the frozen teacher. Only bits per byte compare networks of different vocabularies.

Expected time: about 70 minutes on one CPU core.

Expected result: of half the steps, docs/results.md; ULD costs .15 bits per byte, Multi-Level-OT
changes nothing.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._language import local_pair, teacher_first
from experiments._titles import titled


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    first, second = (300, 320) if smoke else (2048, 4096)
    data = {"packing": "pad", "bpe_size": first, "second_bpe_size": second}
    config = ConfigDict(local_pair(smoke, data, {"input": "second"}), sort_keys=False)
    config.variants = ConfigDict(titled(variants(smoke)), sort_keys=False)
    return config


def variants(smoke: bool) -> dict:
    """Return the variants; both losses read all tokens of a piece, which few texts' ends close."""
    loss = {"toward": "teacher", "weight": 1.5, "skip_student_eos": False}
    return {
        "teacher": teacher_first(smoke),
        "alone": {"roles": {"teacher": None}},
        "uld": toward_frozen({"ce": {}, "universal_logit_distance": loss}),
        "multi_level_ot": toward_frozen({"ce": {}, "multi_level_transport": loss}),
    }
