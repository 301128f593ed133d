"""Shared parts of minilm_teacher.py and minilm_sinkd.py: tasks, data, networks."""

TASKS = {  # training examples, tokens, epochs of teacher and student, selection metric
    "cola": (8551, 64, 3, 3, "matthews"),
    "mrpc": (3668, 128, 3, 3, "f1"),
    "rte": (2490, 128, 5, 3, "accuracy"),
    "sst2": (10_000, 64, 2, 2, "accuracy"),  # of 67,349
}
BATCH = 32
SIZES = {"width": 384, "num_heads": 12, "max_length": 512}  # MiniLM-L6-H384
TINY = {"width": 8, "num_heads": 2, "max_length": 16}


def check(arg: str) -> tuple[str, bool]:
    """Return the task and whether a smoke test is meant; raise ValueError if it is unknown."""
    smoke = arg == "smoke"
    task = "rte" if smoke or not arg else arg
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are {', '.join(TASKS)} and smoke")
    return task, smoke


def epoch(task: str) -> int:
    """Return the number of steps in an epoch; a tenth of the training file is for validation."""
    rows = TASKS[task][0]
    return (rows if task == "sst2" else rows * 9 // 10) // BATCH


def data(task: str, smoke: bool) -> dict:
    """Return the data config; a part of the training file is the validation split."""
    rows, tokens, *_ = TASKS[task]
    config: dict = {"name": "text", "task": f"glue/{task}", "seed": 0}
    if smoke:
        small = {"validation": 0.2, "max_length": 16, "lengths": (), "vocabulary_size": 64}
        return {**config, **small}
    config["max_length"] = tokens
    if task == "sst2":  # a tenth of the file is 6,735 examples
        return {**config, "limit": rows, "validation": 872}
    return {**config, "validation": 0.1}


def bert(layers: int, smoke: bool) -> dict:
    """Return MiniLM's BERT with `layers` layers, or a tiny one for the smoke test."""
    sizes = {**TINY, "num_layers": 1} if smoke else {**SIZES, "num_layers": layers}
    return {"name": "bert", **sizes}
