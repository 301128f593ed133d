"""The steps of CONTRIBUTING for a new loss, run in a copy of the package."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def blocks():
    """Return the fenced blocks of the section in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## To add a loss")[1].split("\n## ")[0]
    fenced = re.findall(r"^ *```(?:python|text)\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    # the section is a numbered list: its blocks are indented by three columns
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in fenced]


def insert(path, after, text):
    source = path.read_text()
    assert source.count(after) == 1, f"{path.name}: {after!r} is not there once"
    path.write_text(source.replace(after, after + text))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kdjax", folder / "kdjax", ignore=leave)
    shutil.copytree(ROOT / "tests" / "losses", folder / "tests" / "losses", ignore=leave)
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests" / "conftest.py")
    function, imported, public, row, term, imported_term, definition = blocks()
    (folder / "kdjax/losses/hellinger.py").write_text(function)
    losses = folder / "kdjax/losses/__init__.py"
    terms = folder / "kdjax/distill/terms/__init__.py"
    insert(losses, "__all__ = [\n", public)
    losses.write_text(losses.read_text().replace("\n__all__", f"\n{imported}\n__all__", 1))
    insert(folder / "tests/losses/test_contract.py", "\nROWS = {\n", row)
    logits = folder / "kdjax/distill/terms/logits.py"
    logits.write_text(logits.read_text() + "\n\n" + term)
    insert(terms, "TermSpec]] = {\n", definition)
    terms.write_text(terms.read_text().replace("\nTERM_SPECS", f"\n{imported_term}\nTERM_SPECS", 1))
    return folder


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_the_contract_holds_for_the_new_loss(copy):
    name = "squared_hellinger"
    process = run(
        copy, "pytest", "tests/losses/test_contract.py", "-q", "-k", name, "-p", "no:cacheprovider"
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:]
    assert re.search(r"\d+ passed", process.stdout)


@pytest.mark.long
def test_the_new_term_trains_and_sweeps(copy):
    (copy / "one.py").write_text(
        textwrap.dedent(
            """
            def get_config(arg=""):
                net = {"name": "mlp", "hidden": (4,)}
                return {
                    "num_steps": 2, "batch_size": 8, "devices": 1, "tensorboard": False,
                    "data": {"name": "synthetic", "shape": (4, 4, 1)},
                    "roles": {
                        "teacher": {"model": net, "terms": {"ce": {}}},
                        "student": {
                            "model": net,
                            "terms": {"squared_hellinger": {"toward": "teacher"}},
                        },
                    },
                }
            """
        )
    )
    path = "roles.student.terms.squared_hellinger.temperature"
    process = run(
        copy, "kdjax", "train", "--config=one.py", "--workdir=out", f"--config.sweep.{path}=[1, 2]"
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    lines = [json.loads(line) for line in (copy / "out/metrics.jsonl").read_text().splitlines()]
    values = {x[path]: x["student/squared_hellinger/raw"] for x in lines if x["split"] == "train"}
    assert set(values) == {1.0, 2.0}
    assert all(0 < value < 1 for value in values.values())
