"""Docstrings and signatures for autodoc: plain text is escaped, arrays keep their shapes."""

import inspect
import re
from typing import Any, get_args

from sphinx.application import Sphinx

_SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")


def _process_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
):
    """Escape the signs of reStructuredText, and make a field of the section "Returns"."""
    escaped, in_doctest, section = [], False, ""
    for line in lines:
        in_doctest = line.lstrip().startswith(">>>") or (in_doctest and bool(line.strip()))
        if in_doctest:
            escaped.append(line)
            continue
        if match := _SECTION.fullmatch(line.strip()):
            section = match[1]
            if section == "Returns":
                escaped.append(":returns:")
                continue
        elif line and not line[0].isspace():
            section = ""
        escaped.append(_escape(line))
    lines[:] = escaped


def _escape(line: str) -> str:
    parts = re.split(r"(`+[^`]*`+)", line)  # code stands at odd places
    for index, part in enumerate(parts):
        if index % 2:
            parts[index] = f"``{part.strip('`')}``"
        else:
            parts[index] = re.sub(r"([*|]|_(?!\w))", r"\\\1", part)
    return "".join(parts)


def _process_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: Any, returns: Any
) -> tuple[str, str] | None:
    """Write the shapes of arrays, and leave out other types."""
    if what != "function":
        return None
    parameters = inspect.signature(thing)
    written = [
        entry.replace(annotation=_shape(entry.annotation))
        for entry in parameters.parameters.values()
    ]
    text = str(inspect.Signature(written))
    result = _shape(parameters.return_annotation)
    return text, "" if result is inspect.Parameter.empty else str(result)


class _Text(str):
    """A string that is written without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _shape(annotation: Any) -> Any:
    """Return "Float['*batch classes']" of a jaxtyping annotation, else no annotation."""
    for kind in (annotation, *get_args(annotation)):
        if hasattr(kind, "dim_str"):
            return _Text(f"{kind.dtype.__name__}[{kind.dim_str!r}]")
    return inspect.Parameter.empty


def _skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings only count them."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions; docstrings come before napoleon reads them."""
    app.connect("autodoc-process-docstring", _process_docstring, priority=400)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
