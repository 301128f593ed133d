"""Folders of GLUE and SuperGLUE files of a few short lines, for all tasks but MultiRC and WSC."""

import json
from pathlib import Path

import numpy as np

from kdjax.data.text.tasks import TASKS, fields

WORDS = ("ann", "bob", "ran", "sat", "home", "away", "and", "then")
SIZES = {"train": 80, "dev": 24}


def write(root: Path, name: str) -> Path:
    """Write the files of a task below `root`; the first word determines the label."""
    task = TASKS[name]
    folder = root / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        rng = np.random.default_rng(len(split))
        rows = [_row(task, number, rng) for number in range(size)]
        if name.startswith("glue/"):
            columns = list(task.header or rows[0])
            lines = [] if task.header else ["\t".join(columns)]
            lines += ["\t".join(str(row.get(column, "")) for column in columns) for row in rows]
            (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        else:
            file = "val" if split == "dev" else split
            (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _row(task, number, rng):
    classes = task.labels or task.class_names
    kind = number % max(len(classes), 2)
    texts = {}
    for field in fields(task.first, task.second, task.prompt, *task.answers):
        words = rng.choice(WORDS[2:], size=2 + number % 4)
        texts[task.columns.get(field, field)] = " ".join([WORDS[kind], *words])
    label = number % 11 / 2 if task.bounds else classes[kind]
    return {**texts, task.label: label}
