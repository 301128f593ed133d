"""Qwen2.5 0.5B is distilled from 1.5B on prompts and completions, or on plain texts.

Data: a .jsonl file or folder with `prompt` and `completion` (or `text`) in each line. The networks,
their weights and the tokenizer are those of two Hugging Face folders; both have one tokenizer.

    python -m kdjax train --config=experiments/lm_kd.py --workdir=runs/qwen \
        --config.data.path=answers.jsonl --config.data.tokenizer=Qwen2.5-0.5B \
        --config.roles.teacher.checkpoint=Qwen2.5-1.5B \
        --config.roles.student.checkpoint=Qwen2.5-0.5B
    python -m kdjax export --workdir=runs/qwen --role=student --out=student --format=huggingface

The argument names the loss: kd (forward KL), rkl, js (GKD's, weight .5), skew (DistiLLM's, alpha
.1), adaptive or tv. The student minimises half of its cross-entropy and half of the loss.

Memory on paper, in bfloat16 with float32 parameters: student 2.0 GB, its gradient and AdamW's
moments 5.9 GB, teacher 6.2 GB. At 8 rows of 512 tokens one array of logits of 151,936 words has 2.5
GB, and about four are alive; activations that `remat` saves have 5.5 GB, half of them scores of
attention: 30 GB, one GPU of 40 GB.

Expected time: not measured.

Expected result: not run here.
"""

from ml_collections import ConfigDict

from experiments._language import adamw

LOSSES = {
    "kd": "forward_kl",
    "rkl": "reverse_kl",
    "js": "jensen_shannon",
    "skew": "skew_forward_kl",
    "adaptive": "adaptive_kl",
    "tv": "total_variation",
}
QWEN = {  # width, layers, heads, ffn_width
    "0.5B": (896, 24, 14, 4864),
    "1.5B": (1536, 28, 12, 8960),
}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    name = "kd" if smoke or not arg else arg
    if name not in LOSSES:
        raise ValueError(f"no loss {name!r}; there are {', '.join(LOSSES)}")
    small = {"path": "stdlib", "limit": 4, "bpe_size": 300}
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else 2000,
            "batch_size": 2 if smoke else 8,
            "eval_batch_size": 4 if smoke else 8,
            "eval_every": 500,
            "precision": "bfloat16",
            "data": {
                "name": "lm",
                "max_length": 16 if smoke else 512,
                "validation": 2 if smoke else 0.02,
                "test": 2 if smoke else 0.02,
                **(small if smoke else {}),
            },
            "roles": {
                "teacher": {"model": qwen("1.5B", smoke)},
                "student": {
                    "model": qwen("0.5B", smoke),
                    "optimizer": adamw(1e-5, 1 if smoke else 100),
                    "remat": True,
                    "terms": {
                        "ce": {"weight": 0.5},
                        LOSSES[name]: {"toward": "teacher", "weight": 0.5},
                    },
                },
            },
        },
        sort_keys=False,
    )
    if smoke:  # without a folder the teacher is trained
        config.roles.teacher.optimizer = adamw(1e-3, 1)
        config.roles.teacher.terms = {"ce": {}}
    return config


def qwen(size: str, smoke: bool) -> dict:
    """Return the options of a Qwen2.5, which must be those of the folder, or of a small one."""
    width, layers, heads, ffn = (8, 1, 2, 16) if smoke else QWEN[size]
    options = {"width": width, "num_layers": layers, "num_heads": heads, "ffn_width": ffn}
    if not smoke:
        options |= {"vocab_size": 151936, "max_length": 32768}
    return {
        "name": "qwen2",
        **options,
        "kv_heads": 2,
        "rope_theta": 1e6,
        "tied": True,
    }
