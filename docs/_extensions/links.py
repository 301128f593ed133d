"""Links to files outside docs/: a page of the site if there is one, else a copy of the file."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
# page of the site -> file of the repository whose text it takes in
PAGES = {
    "benchmarks": ROOT / "benchmarks" / "RESULTS.md",
    "changelog": ROOT / "CHANGELOG.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "sources": ROOT / "third_party_notes.md",
}
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def resolve(text: str, folder: Path) -> str:
    """Rewrite the relative links of a file in `folder` for a page in docs/."""
    pages = {file: f"{name}.md" for name, file in PAGES.items()}

    def rewritten(match: re.Match[str]) -> str:
        path, anchor = (folder / match[1]).resolve(), match[2] or ""
        if path in pages:
            return f"]({pages[path]}{anchor})"
        target = os.path.relpath(path, DOCS)
        if path.is_relative_to(DOCS) or path.suffix in (".svg", ".png"):
            return f"]({target}{anchor})"
        return f"](path:{target})"

    return _LINK.sub(rewritten, text)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    text = resolve(source[0], DOCS)
    if docname in PAGES:
        app.env.note_dependency(str(PAGES[docname]))
        body = PAGES[docname].read_text().partition("\n")[2]  # the page has a title of its own
        text += resolve(body, PAGES[docname].parent)
    source[0] = text


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite each source as it is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
