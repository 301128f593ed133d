"""Nine ways to train a small decoder on the sources of Python's standard library.

Data: the .py files of the running interpreter's standard library, without tests and generated
tables; nothing is downloaded. Files are divided into train, validation (12) and test (12); the
vocabulary is a byte-level BPE of 4,096 tokens, trained on the training files and cached. A step
reads 8 rows of 128 tokens. Teacher: a Llama of 5 layers and width 256 (4.9 M parameters), one seed,
2,000 steps. Student: 2 layers, width 128 (0.9 M), 3 seeds in one program, 800 steps.

    python -m kdjax train --config=experiments/lm_local.py --workdir=runs/lm

alone uses cross-entropy only; the others minimise half of it and half of their loss toward the
frozen teacher, at T = 1. The skewed KL has alpha = .1, JS weighs both sides equally; sinkd adds to
kd the transport between the tokens of each row, at T = 2 and a weight of .8 on the mean over tokens
(the published 8e-4 on a sum over 1,024 tokens). gkd minimises JS alone, on rows of which the
student writes the last 32 tokens in half of the batches. Nothing is tuned.

Expected time: 17 minutes for the teacher and 8 to 12 for each row on one CPU core, 2 hours in all.

Expected result: bits per byte (docs/results.md): teacher 1.641, alone 1.880, KD 1.743, adaptive
1.797, skewed 1.820, reverse KL 1.822, JS 1.852, TV 1.883, KD + SinKD 1.734, GKD 1.996.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._language import local_pair, teacher_first
from experiments._titles import titled

HALF = {"toward": "teacher", "weight": 0.5}
CE = {"weight": 0.5}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    config = ConfigDict(local_pair(smoke, {"bpe_size": 300} if smoke else {}), sort_keys=False)
    config.variants = ConfigDict(titled(variants(smoke)), sort_keys=False)
    return config


def variants(smoke: bool) -> dict:
    """Return the variants; each is a row of the table."""
    kd = {"ce": CE, "forward_kl": HALF}
    transport = {
        "toward": "teacher",
        "weight": 0.8,
        "temperature": 2.0,
        "epsilon": 0.1,
        "per_sequence": True,
    }
    return {
        "teacher": teacher_first(smoke),
        "alone": {"roles": {"teacher": None}},
        "kd": toward_frozen(kd),
        "rkl": toward_frozen({"ce": CE, "reverse_kl": HALF}),
        "js": toward_frozen({"ce": CE, "jensen_shannon": HALF}),
        "skew": toward_frozen({"ce": CE, "skew_forward_kl": HALF}),
        "adaptive": toward_frozen({"ce": CE, "adaptive_kl": HALF}),
        "tv": toward_frozen({"ce": CE, "total_variation": HALF}),
        "sinkd": toward_frozen({**kd, "sinkhorn": transport}),
        "gkd": on_policy({"jensen_shannon": {"toward": "teacher"}}, new_tokens=8 if smoke else 32),
    }


def on_policy(terms: dict, new_tokens: int) -> dict:
    """Return a variant of these terms alone; the student completes half of the batches itself."""
    variant = toward_frozen({"ce": None, **terms})
    variant["roles"]["student"]["on_policy"] = {"max_new_tokens": new_tokens}
    return variant
