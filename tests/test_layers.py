"""Who may import whom: the layers of the design, held by reading the sources."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kdjax"
PURE = {"types", "errors"}
TOP = {"jax", "jaxtyping"}  # what every numerical layer may use
# layer -> (layers of kdjax, third-party packages) that it may import; "losses.transport" would be
# a file with rules of its own. Layers that are not named here are "build: everything".
RULES = {
    "errors": (set(), set()),
    "types": ({"errors"}, {"jax"}),
    "losses": (PURE, TOP),
    "losses.transport": (PURE | {"losses"}, TOP | {"ott"}),
    # scipy: exact solvers, neighbour trees and special functions on the host, in float64
    "bounds": (PURE, TOP | {"numpy", "scipy"}),
    "bounds.entropic": (PURE | {"bounds"}, TOP | {"numpy", "scipy", "ott"}),
    "studies": (PURE | {"bounds"}, {"numpy", "scipy"}),
    "calibration": (PURE, TOP | {"numpy"}),
    "terms": (PURE | {"losses"}, {"jax"}),
    "methods": (PURE | {"losses", "terms"}, {"jax"}),
    "critics": (PURE | {"losses", "terms", "models"}, {"jax", "numpy"}),
    "models": (PURE, TOP | {"flax", "numpy", "safetensors"}),
    "data": (
        PURE,
        {"numpy", "tensorflow_datasets", "grain", "jax", "PIL", "sklearn", "array_record", "absl"},
    ),
    "data.tokenize": (PURE | {"data"}, {"numpy", "tokenizers"}),
    "task_metrics": (PURE | {"data"}, {"numpy", "scipy", "sklearn"}),
    "train": (PURE, {"jax", "numpy", "optax", "orbax"}),
    "report": (
        {"errors"},
        {"numpy", "matplotlib", "mpl_toolkits", "rich", "tensorboardX", "google"},
    ),
    "defaults": (set(), set()),
    "config": ({"errors", "defaults"}, set()),
}
FREE = {  # read configs, flags and files, and put everything together
    "__init__", "__main__", "allocator", "build", "chains", "checks", "class_means", "cli",
    "comparisons", "detection_metrics", "diagnostics", "distances", "distributed", "export_run",
    "exports", "flags", "frozen", "imports", "inputs", "judging", "listing", "networks", "origins",
    "panels",
    "parts", "plan", "players", "probes", "program",
    "ramps", "recorder", "run", "scoring", "selection",
    "study", "summary", "task", "workdir",
}  # fmt: skip
LOWER = {
    "bounds", "critics", "data", "losses", "methods", "models", "report", "terms", "train", "types",
}  # fmt: skip


def modules():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(path):
    """Yield every imported dotted name of a file, also of imports inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    return name if name in RULES else name.split(".")[0]


@pytest.mark.parametrize("name", modules())
def test_imports_stay_in_their_layer(name):
    own = layer(name)
    if own in FREE:
        return
    assert own in RULES, f"kdjax/{name}: say in this file what it may import"
    inner, outer = RULES[own]
    allowed = inner | {own.split(".")[0]}
    for found in imports(modules()[name]):
        parts = found.split(".")
        if parts[0] == "kdjax":
            assert len(parts) > 1, "import a module of kdjax, not kdjax"
            assert parts[1] in allowed, f"kdjax/{name} must not import {found}"
        elif parts[0] not in sys.stdlib_module_names:
            assert parts[0] in outer, f"kdjax/{name} must not import {found}"


@pytest.mark.parametrize("name", sorted(LOWER))
def test_lower_layers_do_not_read_configs(name):
    for module, path in modules().items():
        if module.split(".")[0] == name:
            # grain's worker processes need absl's flags to have been parsed, whatever they hold
            forbidden = {"ml_collections", "argparse"} | ({"absl"} if name != "data" else set())
            assert not forbidden & {found.split(".")[0] for found in imports(path)}, module


def test_experiments_import_ml_collections_only():
    """And what siblings share: a file whose name begins with "_", which is no experiment."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        found = [name for name in imports(path) if not name.startswith("experiments._")]
        third = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
        assert third <= {"ml_collections"}, path.name


def test_reports_and_errors_run_without_jax():
    names = [n for n in modules() if n.split(".")[0] in ("report", "errors")]
    lines = [f"import kdjax.{n.removesuffix('.__init__')}" for n in names]
    code = "; ".join(["import sys", *lines, "sys.exit('jax' in sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0, "something that report imports brings jax"


def test_files_are_short():
    for name, path in modules().items():
        text = path.read_text()
        assert text.count("\n") <= 300, f"kdjax/{name} has more than 300 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.body:
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert lines <= 50, f"kdjax/{name}: {node.name} has a body of {lines} lines"
