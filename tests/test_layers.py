"""Import rules between the rooms of the package, checked in the sources."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kdjax"
EVERYBODY = {"types", "errors"}  # allowed in every room
# room, or file at the root -> (rooms of kdjax, third-party packages) that it may import
RULES = {
    "__init__": (set(), set()),
    "errors": (set(), set()),
    "types": (set(), {"jax"}),
    "calibration": (set(), {"jax", "jaxtyping", "numpy"}),
    "losses": (set(), {"jax", "jaxtyping", "ott"}),
    "bounds": (set(), {"jax", "jaxtyping", "numpy", "ott", "scipy"}),
    "data": (
        set(),
        {
            "PIL", "absl", "array_record", "datasets", "fsspec", "grain", "jax", "numpy", "sklearn",
            "tensorflow_datasets", "tokenizers",
        },
    ),
    "train": (set(), {"etils", "jax", "numpy", "optax", "orbax"}),
    "report": (
        set(),
        {
            "aiohttp", "etils", "fsspec", "google", "jinja2", "markupsafe", "matplotlib",
            "mpl_toolkits", "numpy", "pydantic", "rich", "tensorboardX",
        },
    ),
    "models": ({"bounds"}, {"flax", "jax", "jaxtyping", "numpy", "safetensors"}),
    "distill": ({"losses", "models"}, {"jax", "jaxtyping", "numpy", "optax"}),
    "evaluation": (
        {"calibration", "data", "distill", "models"},
        {"PIL", "jax", "numpy", "pycocotools", "rouge_score", "scipy", "sklearn", "threadpoolctl"},
    ),
    "experiment": (
        {
            "calibration", "losses", "bounds", "models", "data", "distill", "train", "evaluation",
            "report",
        },
        {
            "absl", "jax", "ml_collections", "numpy", "optax", "orbax", "pydantic", "rich", "scipy",
            "tensorstore",
        },
    ),
}  # fmt: skip
# files of `experiment` and `report` that open files themselves -> which
OPENS_FILES = {
    "report.files": "of workdirs, on a disk or in a bucket",
    "report.staging": "local copies of what is in a bucket",
    "report.metrics_log": "the local file that lines are appended to",
    "report.tensorboard": "local files that records are appended to",
    "experiment.run.lock": "the lock of the kernel, /proc",
    "experiment.commands.catalog": "the user's experiments",
    "experiment.commands.overrides": "the user's experiment",
    "experiment.commands.predict": "the user's inputs and table",
}
METHODS_OF_FILES = {
    "exists", "glob", "is_dir", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text",
    "rename", "rglob", "rmdir", "stat", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
TOP = {"cli", "__main__"}  # the command line may import everything
ORDER = ("config", "build", "run", "commands")  # inside experiment: each imports those before it


@functools.cache
def modules():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@functools.cache
def imports(path):
    """Return every imported dotted name of a file, including imports inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def target(dotted):
    """Return the module of kdjax that contains a dotted name, or None for other packages."""
    parts = dotted.split(".")
    known = modules()
    for end in range(len(parts), 1, -1):
        name = ".".join(parts[1:end])
        for module in (name, f"{name}.__init__"):
            if parts[0] == "kdjax" and module in known:
                return module
    return None


def room(name):
    return name.split(".")[0]


def test_rooms():
    assert {room(name) for name in modules()} == set(RULES) | TOP


@pytest.mark.parametrize("name", modules())
def test_imports_stay_in_their_layer(name):
    if room(name) in TOP:
        return
    inner, outer = RULES[room(name)]
    for dotted in imports(modules()[name]):
        parts = dotted.split(".")
        if parts[0] == "kdjax":
            allowed = inner | EVERYBODY | {room(name), "__version__"}
            assert parts[1] in allowed, f"kdjax/{name} must not import {dotted}"
            if room(name) == "models" and parts[1] == "bounds":
                assert name.startswith("models.certificates"), f"{name}: {dotted}"
            if room(name) == "distill" and parts[1] == "models":
                assert name.startswith(("distill.critics", "distill.methods")), f"{name}: {dotted}"
        elif parts[0] not in sys.stdlib_module_names:
            assert parts[0] in outer, f"kdjax/{name} must not import {dotted}"


def opened_files(tree):
    """Yield what opens, lists, writes or removes a file other than by `report.files`."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from {"pathlib", "shutil", "tempfile", "fcntl", "glob"} & set(names)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from {"open"} & {node.func.id}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            if owner == "os":
                yield from {node.func.attr} & {*METHODS_OF_FILES, "replace", "remove", "listdir"}
            elif owner not in ("data", "files", "staging"):
                yield from {node.func.attr} & METHODS_OF_FILES


@pytest.mark.parametrize("name", [n for n in modules() if room(n) in ("experiment", "report")])
def test_workdirs_are_accessed_through_one_module(name):
    found = sorted(set(opened_files(ast.parse(modules()[name].read_text()))))
    if name in OPENS_FILES:
        assert found, f"{name} opens no files: remove it from OPENS_FILES"
    else:
        assert not found, f"kdjax/{name} must use report.files instead of {', '.join(found)}"


def test_layers_inside_experiment():
    for name, path in modules().items():
        parts = name.split(".")
        if parts[0] != "experiment" or len(parts) < 3:
            continue
        for dotted in imports(path):
            other = (target(dotted) or "").split(".")
            if other[0] == "experiment" and len(other) > 2:
                message = f"kdjax/{name} must not import {dotted}"
                assert ORDER.index(other[1]) <= ORDER.index(parts[1]), message


def test_no_files_import_each_other():
    edges = {
        name: {other for dotted in imports(path) if (other := target(dotted))} - {name}
        for name, path in modules().items()
    }
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            path.append(name)
            for other in sorted(edges[name]):
                visit(other)
            path.pop()
            done.add(name)

    for name in edges:
        visit(name)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"experiment"}))
def test_only_experiment_reads_configs_and_flags(name):
    for module, path in modules().items():
        if room(module) == name:
            # grain's worker processes need absl's flags to be parsed
            forbidden = {"ml_collections", "argparse"} | ({"absl"} if name != "data" else set())
            assert not forbidden & {dotted.split(".")[0] for dotted in imports(path)}, module


def test_experiments_import_ml_collections_only():
    """Shared files, whose names begin with "_", are allowed too."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        names = [name for name in imports(path) if not name.startswith("experiments._")]
        third = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
        assert third <= {"ml_collections"}, path.name


def test_reports_errors_and_the_package_run_without_jax():
    """And the package imports its rooms when they are used."""
    names = [n for n in modules() if room(n) in ("report", "errors")]
    lines = [f"import kdjax.{n.removesuffix('.__init__')}" for n in names]
    code = "; ".join(
        [
            "import sys",
            *lines,
            "assert 'jax' not in sys.modules, 'something that report imports brings jax'",
            "kdjax.losses.forward_kl",
            "assert set(dir(kdjax)) >= {'losses', 'models'}, 'kdjax lacks a room'",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
