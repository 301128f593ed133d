"""Shared parts of glue_teacher.py and glue_sinkd.py: tasks, run lengths, networks, optimizer."""

ROWS = {  # in the training files
    "cola": 8551,
    "mnli": 392_702,
    "mrpc": 3668,
    "qnli": 104_743,
    "qqp": 363_846,
    "rte": 2490,
    "sst2": 67_349,
    "stsb": 5749,
}
METRICS = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}  # default: accuracy


def num_validation(task: str) -> int:
    """Return the number of validation examples: a tenth of the training file, at most 1,000."""
    return min(ROWS[task] // 10, 1000)


def epoch(task: str, batch: int) -> int:
    """Return the number of steps in an epoch."""
    return (ROWS[task] - num_validation(task)) // batch


def check(task: str) -> str:
    """Return `task`; raise ValueError if it is unknown."""
    if task not in ROWS:
        raise ValueError(f"no task {task!r}; there are {', '.join(ROWS)} and smoke")
    return task


def data(task: str, smoke: bool) -> dict:
    """Return the data config; the smoke test sets its own path."""
    config = {"name": "text", "task": f"glue/{task}", "form": "classify"}
    if smoke:
        small = {"validation": 0.2, "max_length": 16, "lengths": (), "vocabulary_size": 64}
        return {**config, **small}
    return {**config, "validation": num_validation(task), "max_length": 128}


def bert(layers: int, smoke: bool) -> dict:
    """Return BERT base with `layers` layers, or a tiny BERT for the smoke test."""
    if smoke:
        return {"name": "bert", "num_layers": layers // 6, "width": 8, "num_heads": 2}
    return {"name": "bert", "num_layers": layers, "width": 768, "num_heads": 12}


def optimizer(rate: float) -> dict:
    """Return AdamW as published: eps 1e-8, no decay, no warm-up, linear decay to 0."""
    return {
        "name": "adamw",
        "learning_rate": rate,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "schedule": {"name": "linear"},
    }
