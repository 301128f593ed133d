"""A few lines of text for language models: additions in words."""

import json

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
)  # fmt: skip


def rows(prompts=False):
    """Return 36 rows, with prompts or plain."""
    sums = [(a, b) for a in range(6) for b in range(6)]
    pairs = [(f"{NUMBERS[a]} plus {NUMBERS[b]} is", f" {NUMBERS[a + b]}") for a, b in sums]
    if prompts:
        return [{"prompt": prompt, "completion": answer} for prompt, answer in pairs]
    return [{"text": prompt + answer} for prompt, answer in pairs]


def write(folder, prompts=False):
    """Write the rows to a file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(prompts)))
    return file
