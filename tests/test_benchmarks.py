"""The accelerator's benchmark runs where only jax, flax and what these need are installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"
MISSING = ["ott", "ml_collections", "tensorflow_datasets", "grain", "pydantic", "sklearn"]
MISSING += ["tensorboardX", "jinja2", "matplotlib", "PIL", "safetensors", "jaxtyping"]
DRIVER = f"""
import os, runpy, sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] in {MISSING} else find(name, path, target)
PathFinder.find_spec = without
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.long
def test_tiny_run_without_the_dependencies(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, "-c", DRIVER, str(SCRIPT), "--tiny", "--repeats=1"]
    subprocess.run([*command, "--minutes=30", f"--json={out}"], check=True, cwd=tmp_path)
    rows = json.loads(out.read_text())["rows"]
    assert {row["part"] for row in rows} == {"pairs", "sweep", "sinkhorn", "share", "dispatch"}
    assert [row for row in rows if "not_run" in row] == []
    assert all(row["ms"] > 0 for row in rows)
