"""What glue_teacher.py and glue_sinkd.py share: tasks, lengths of runs, networks, optimizer."""

ROWS = {  # of the training files
    "cola": 8551,
    "mnli": 392_702,
    "mrpc": 3668,
    "qnli": 104_743,
    "qqp": 363_846,
    "rte": 2490,
    "sst2": 67_349,
    "stsb": 5749,
}
METRICS = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}  # else accuracy


def held(task: str) -> int:
    """How many training examples validate: a tenth, at most 1,000."""
    return min(ROWS[task] // 10, 1000)


def epoch(task: str, batch: int) -> int:
    """Steps of an epoch."""
    return (ROWS[task] - held(task)) // batch


def check(task: str) -> str:
    """The task, if it is one."""
    if task not in ROWS:
        raise ValueError(f"no task {task!r}; there are {', '.join(ROWS)} and smoke")
    return task


def data(task: str, smoke: bool) -> dict:
    """Where the texts come from; a test of two steps sets the path of its own."""
    found = {"name": "text", "task": f"glue/{task}", "form": "classify"}
    if smoke:
        small = {"validation": 0.2, "max_length": 16, "lengths": (), "vocabulary_size": 64}
        return {**found, **small}
    return {**found, "validation": held(task), "max_length": 128}


def bert(layers: int, smoke: bool) -> dict:
    """BERT base, or the first six layers' worth of it."""
    if smoke:
        return {"name": "bert", "num_layers": layers // 6, "width": 8, "num_heads": 2}
    return {"name": "bert", "num_layers": layers, "width": 768, "num_heads": 12}


def optimizer(rate: float) -> dict:
    """AdamW as published: eps 1e-8, no decay, no warm-up, a linear fall to 0."""
    return {
        "name": "adamw",
        "learning_rate": rate,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "schedule": {"name": "linear"},
    }
