"""SinKD on a task of SuperGLUE with generative networks: a small T5 or GPT-Neo from a large one.

The loss is CE + .1 KD (T = 1) + 8e-4 times the *sum* of the transport cost (T = 2, epsilon .1, 20
iterations), with the published weights. All three terms use flattened tokens: each real token of
the right answer is a row over the whole vocabulary, and transport is between all such rows of the
batch; CE and KD are averaged over the tokens of an answer, then over answers. To classify among the
answers instead, set --config.roles.student.terms.sinkhorn.layer="" (likewise ce and
soft_cross_entropy). Evaluation ranks the answers by their summed log-probability. Sizes, batch,
epochs and learning rates are not published ones: these were not available.

Data: jsonl files in data.path (train.jsonl, val.jsonl), or tfds with pip install 'kdjax[tf]'.
Both networks share the vocabulary data.tokenizer. T5 is version 1.1 (google/t5-v1_1-base of the
hub). The argument is TASK,MODEL (default boolq,t5).

    python -m kdjax train --config=experiments/superglue_sinkd.py:boolq,t5 \
        --config.data.path=superglue --config.data.tokenizer=t5-v1_1-base \
        --config.roles.teacher.checkpoint=t5-large-tuned \
        --config.roles.student.checkpoint=t5-v1_1-base --workdir=runs/superglue_sinkd

The argument boolq,t5,teacher trains the teacher alone; `export` then writes its checkpoint.

Expected time: not measured; hours on one accelerator.

Expected result: not run here; the published table was not available.
"""

from ml_collections import ConfigDict

ROWS = {  # in the training files
    "boolq": 9427,
    "cb": 250,
    "copa": 400,
    "multirc": 27_243,
    "rte": 2490,
    "wic": 5428,
    "wsc": 554,
}
METRICS = {"cb": "macro_f1", "multirc": "f1"}  # default: accuracy
VALIDATION, BATCH, EPOCHS = 0.1, 16, 10
T5 = {"name": "t5", "version": "1.1", "vocab_size": 32_128}
NEO = {"name": "gpt_neo", "vocab_size": 50_257}
NETWORKS = {  # teacher, student, learning rate
    "t5": (
        {**T5, "num_layers": 24, "width": 1024, "num_heads": 16, "head_width": 64},
        {**T5, "num_layers": 12, "width": 768, "num_heads": 12, "head_width": 64},
        1e-4,
    ),
    "gpt_neo": (
        {**NEO, "num_layers": 24, "width": 2048, "num_heads": 16},
        {**NEO, "num_layers": 12, "width": 768, "num_heads": 12},
        5e-5,
    ),
}
FFN = {1024: 2816, 768: 2048}  # of T5 1.1
LAYER = "token_logits"


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    task, name, alone = parse("boolq,t5" if smoke else arg)
    teacher, student, rate = NETWORKS[name]
    steps = int(ROWS[task] * (1 - VALIDATION)) // BATCH
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else EPOCHS * steps,
            "batch_size": 4 if smoke else BATCH,
            "eval_batch_size": 32,
            "eval_every": steps,
            "checkpoint_every": steps,
            "data": data(task, smoke),
            "roles": {
                "teacher": {
                    "model": network(teacher, smoke),
                    "optimizer": optimizer(rate),
                    "terms": {"ce": {"weight": 1.0, "layer": LAYER}} if alone else {},
                },
                "student": {
                    "model": network(student, smoke),
                    "optimizer": optimizer(rate),
                    "terms": distilled(),
                },
            },
            "sweep": {"seed": (0,)},
            "select": {"role": "student", "metric": METRICS.get(task, "accuracy")},
        },
        sort_keys=False,
    )
    if alone:
        del config.roles.student
        config.select.role = "teacher"
    if smoke:
        config.variants = ConfigDict(variants(), sort_keys=False)
    return config


def parse(arg: str) -> tuple[str, str, bool]:
    """Return task, network, and whether the teacher is trained alone."""
    task, name, role, *rest = [*(arg or "boolq,t5").split(","), "", ""][:4]
    name = name or "t5"
    if task not in ROWS or name not in NETWORKS or role not in ("", "teacher") or any(rest):
        tasks, names = ", ".join(ROWS), ", ".join(NETWORKS)
        raise ValueError(f"{arg!r} is not TASK,MODEL[,teacher]; tasks {tasks}; models {names}")
    return task, name, bool(role)


def network(options: dict, smoke: bool) -> dict:
    """Return a network; for the smoke test a tiny one with the vocabulary of the data."""
    if smoke:
        return {"name": options["name"], "num_layers": 1, "width": 8, "num_heads": 2}
    ffn = {"ffn_width": FFN[options["width"]]} if options["name"] == "t5" else {}
    return {**options, **ffn}


def optimizer(rate: float) -> dict:
    """Return AdamW as published: eps 1e-8, no decay, no warm-up, linear decay to 0."""
    schedule = {"name": "linear"}
    adamw = {"name": "adamw", "learning_rate": rate, "weight_decay": 0.0, "clip_norm": 1.0}
    return {**adamw, "schedule": schedule}


def distilled() -> dict:
    """Return the student's terms."""
    soft = {"toward": "teacher", "weight": 0.1, "temperature": 1.0, "layer": LAYER}
    transport = {"temperature": 2.0, "epsilon": 0.1, "num_iters": 20, "layer": LAYER}
    return {
        "ce": {"weight": 1.0, "layer": LAYER},
        "soft_cross_entropy": soft,
        "sinkhorn": {"toward": "teacher", "weight": 8e-4, **transport},
    }


def data(task: str, smoke: bool) -> dict:
    """Return the data config; the smoke test sets its own path."""
    config = {"name": "text", "task": f"super_glue/{task}", "form": "choices"}
    if smoke:
        small = {"validation": 0.2, "max_length": 16, "lengths": (), "vocabulary_size": 64}
        return {**config, **small}
    return {**config, "validation": VALIDATION, "max_length": 256}


def variants() -> dict:
    """Return variants for runs without a checkpoint: first the teacher, then the student."""
    return {
        "teacher": {
            "roles": {"teacher": {"terms": {"ce": {"layer": LAYER}}}, "student": None},
        },
        "student": {"roles": {"teacher": {"from_variant": "teacher"}}},
    }
