"""Texts that language models write, by prompt: for a terminal and for a page."""

import json
from collections.abc import Sequence

from kdjax.report.results import TextSample
from kdjax.report.template import render


def as_lines(samples: Sequence[TextSample]) -> list[str]:
    """Return a line for each prompt, reference and text; breaks of lines are escaped."""
    lines = []
    for sample in samples:
        texts = {"prompt": sample.prompt, "reference": sample.reference, **sample.texts}
        width = max(map(len, texts))
        lines += [
            f"{name:{width}}  {json.dumps(text, ensure_ascii=False)}"
            for name, text in texts.items()
        ]
        lines.append("")
    return lines


def as_html(samples: Sequence[TextSample]) -> str:
    """Return a list of texts for each prompt; "" if there are none."""
    return render("texts.html.j2", samples=samples) if samples else ""
