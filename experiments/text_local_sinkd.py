"""SinKD on a laptop: six losses between two small BERTs on a folder of GLUE's files.

Teacher: 2 layers of width 128, from scratch; students half as wide; no dropout.
Data: the task's tsv files and a WordPiece vocab.txt (without one it is trained on the texts). The
argument is a task with classes: cola, mrpc, rte or sst2 (8,000 of its training examples).

    python -m kdjax train --config=experiments/text_local_sinkd.py:mrpc \
        --config.data.path=glue --config.data.vocabulary=vocab.txt --workdir=runs/text_mrpc

Each variant minimises .1 CE + .9 of its loss at T = 2, with three exceptions: alone uses CE only;
sinkd and sinkd_debiased add to kd 8e-4 times the summed transport cost (the published weight;
debiased: of the divergence); in online the teacher is trained too and also minimises the
transport. The other variants use the frozen teacher of variant "teacher" with the same seed; its
outputs are cached. Every variant sweeps the learning rate (2 values x 3 seeds, one program),
selected on a tenth of the training file (sst2: an eightieth). The official development set is the
test split. Networks trained on so little text are far below pre-trained ones, so only the losses
are compared.

Expected time: 9 to 10 minutes on 2 CPU cores.

Expected result: docs/results.md.
"""

from ml_collections import ConfigDict

from experiments._frozen import toward_frozen
from experiments._titles import titled

TASKS = {  # tokens, steps, validation fraction of train, selection metric
    "cola": (32, 360, 0.1, "matthews"),
    "mrpc": (64, 200, 0.1, "f1"),
    "rte": (64, 240, 0.1, "accuracy"),
    "sst2": (32, 360, 0.0125, "accuracy"),
}
BATCH, LIMIT = 16, 8000
SOFT = {"toward": "teacher", "weight": 0.9, "temperature": 2.0}
TRANSPORT = {"toward": "teacher", "weight": 8e-4, "temperature": 2.0, "epsilon": 0.1}


def get_config(arg: str = "") -> ConfigDict:
    smoke = arg == "smoke"
    task = "mrpc" if smoke or not arg else arg
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are {', '.join(TASKS)} and smoke")
    length, steps, held, metric = TASKS[task]
    config = ConfigDict(
        {
            "num_steps": 2 if smoke else steps,
            "batch_size": 4 if smoke else BATCH,
            "log_every": 20,
            "eval_every": steps // 2,
            "checkpoint_every": steps // 2,
            "data": {
                "name": "text",
                "task": f"glue/{task}",
                "seed": 0,  # one batch for all members
                "validation": 0.2 if smoke else held,
                **({} if smoke else {"limit": LIMIT}),
                "vocabulary_size": 64 if smoke else 8000,
                "max_length": 16 if smoke else length,
                "lengths": (),  # one shape: one compilation for each variant
            },
            "roles": {
                "teacher": role({"width": 8, "num_layers": 1} if smoke else {"width": 128}),
                "student": role({"width": 8, "num_layers": 1} if smoke else {"width": 64}),
            },
            "select": {"role": "student", "metric": metric},
        },
        sort_keys=False,
    )
    rows = variants()
    if smoke:
        rows = {name: rows[name] for name in ("teacher", "sinkd", "online")}
    config.variants = ConfigDict(titled(rows), sort_keys=False)
    rates, seeds = ((1e-3,), (0,)) if smoke else ((3e-4, 1e-3), (0, 1, 2))
    config.sweep = ConfigDict(
        {"roles.*.optimizer.learning_rate": rates, "seed": seeds},
        allow_dotted_keys=True,
        sort_keys=False,
    )
    return config


def role(sizes: dict) -> dict:
    """Return a BERT with AdamW: no decay, clip 1, linear decay to 0."""
    common = {"num_layers": 2, "num_heads": 2, "max_length": 128, "dropout": 0.0}
    return {
        "model": {"name": "bert", **common, **sizes},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "schedule": {"name": "linear"},
        },
        "terms": {"ce": {}},
    }


def variants() -> dict:
    """Return the variants; each is a row of the table."""
    kd = {"ce": {"weight": 0.1}, "soft_cross_entropy": SOFT}
    return {
        "teacher": {"roles": {"student": None}},
        "alone": {"roles": {"teacher": None}},
        "kd": toward_frozen(kd, cache=True),
        "rkl": toward_frozen({"ce": {"weight": 0.1}, "reverse_kl": SOFT}, cache=True),
        "js": toward_frozen({"ce": {"weight": 0.1}, "jensen_shannon": SOFT}, cache=True),
        "tv": toward_frozen({"ce": {"weight": 0.1}, "total_variation": SOFT}, cache=True),
        "sinkd": toward_frozen({**kd, "sinkhorn": TRANSPORT}, cache=True),
        "sinkd_debiased": toward_frozen({**kd, "sinkhorn_divergence": TRANSPORT}, cache=True),
        "online": {
            "roles": {
                "teacher": {"terms": {"sinkhorn": {**TRANSPORT, "toward": "student"}}},
                "student": {"terms": {**kd, "sinkhorn": TRANSPORT}},
            }
        },
    }
