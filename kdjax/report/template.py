"""Templates of the page and of Markdown; HTML escapes text but not figures."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from kdjax.report.metric_format import MEANINGS


def render(template: str, **context: Any) -> str:
    """Render a template of `templates/`."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kdjax.report"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["meanings"] = MEANINGS
    environment.filters["markdown"] = _escape_markdown
    return environment


def _escape_markdown(text: str) -> str:
    for sign in "\\|*_<`[":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
