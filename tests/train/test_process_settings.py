"""Settings of the process: imports change none, and the hook hides only orbax's errors."""

import subprocess
import sys
import types

from kdjax.train import process_settings

IMPORTS_CHANGE_NOTHING = """
import logging, sys
before = sys.unraisablehook
import kdjax.train.checkpoint, kdjax.train.process_settings
sys.exit(sys.unraisablehook is not before or bool(logging.getLogger("absl").filters))
"""


def test_imports_have_no_side_effects():
    assert (
        subprocess.run([sys.executable, "-c", IMPORTS_CHANGE_NOTHING], check=False).returncode == 0
    )


def unraisable(path):
    """Return an error that was raised in a file of this path."""
    try:
        exec(compile("1 / 0", path, "exec"))
    except ZeroDivisionError as error:
        return types.SimpleNamespace(exc_traceback=error.__traceback__)


def test_the_hook_hides_only_errors_of_orbax(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    process_settings.configure_process()
    process_settings.configure_process()
    other = unraisable("/site-packages/mine/reader.py")
    for error in (unraisable("/site-packages/orbax/checkpoint/reader.py"), other):
        sys.unraisablehook(error)
    assert reported == [other]
