"""Settings of the process: imports change none, and the hook hides only orbax's errors."""

import io
import os
import subprocess
import sys
import types
import warnings

import jax

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


def test_a_warning_is_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    process_settings.configure_process()
    assert warnings.formatwarning("the head is new", UserWarning, "a.py", 3) == (
        "warning: the head is new\n"
    )
    assert warnings.formatwarning("old", FutureWarning, "a.py", 3) == "FutureWarning: old\n"


def test_a_terminal_without_the_signs_gets_others(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", None)  # closed by the shell
    process_settings.configure_process()
    out.write("é 1 ± 2")
    assert out.buffer.getvalue() == b"? 1 +- 2"
    assert sys.stderr.write("lost")


def test_settings_of_jax_that_would_stop_a_command(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no HOME, no entry in passwd
    before = jax.config.jax_compilation_cache_dir
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        jax.config.update("jax_numpy_rank_promotion", "raise")
        process_settings.configure_process()
        assert jax.config.jax_numpy_dtype_promotion == "standard"
        assert jax.config.jax_numpy_rank_promotion == "allow"
    assert jax.config.jax_compilation_cache_dir == before
