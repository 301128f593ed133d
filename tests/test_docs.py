"""README and docs: length, links inside the repository, and pages that stay complete."""

import gzip
import json
import pathlib
import re
import tomllib
import types

import pytest

import kdjax
from experiments._methods import METHODS, following, stages_of
from kdjax.distill import critics, terms
from kdjax.experiment.build.build import build
from kdjax.report.results import RunSummary, from_json
from kdjax.report.statistics import summarise

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PHOTOGRAPHS = ROOT / "experiments/results/cifar10_jpeg_table/report.json.gz"
PLACES = ("*.md", "docs/*.md", "benchmarks/*.md", "experiments/results/*/*.md")
TEXTS = sorted(path for place in PLACES for path in ROOT.glob(place))
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
MENTION = re.compile(r"\b((?:docs|experiments|benchmarks|tests|kdjax)/[\w./-]+\.(?:md|py|json))\b")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def label(path):
    return path.relative_to(ROOT).as_posix()


def anchors(path):
    """The anchors that headings of a page have on the site and in a repository browser."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]
    return {*plain, *(head.lstrip("0123456789-") for head in plain)}


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_links_inside_the_repository_lead_somewhere(path):
    for target, anchor in LINK.findall(FENCE.sub("", path.read_text())):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{label(path)}: {target}"
        stub = file.suffix == ".md" and len(file.read_text().splitlines()) < 3
        if anchor and file.suffix == ".md" and not stub:  # the site fills in a stub
            assert anchor in anchors(file), f"{label(path)}: {target}#{anchor}"


@pytest.mark.parametrize("path", TEXTS, ids=label)
def test_files_that_a_text_names_exist(path):
    for name in MENTION.findall(path.read_text()):
        if "NAME" not in name and "hellinger" not in name:  # CONTRIBUTING's example is not here
            assert (ROOT / name).exists(), f"{label(path)}: {name}"


def test_tests_that_the_docs_name_exist():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for path in DOCS.glob("*.md"):
        for name in re.findall(r"\btest_\w+\b(?!\.py)", path.read_text()):
            assert re.search(rf"def {name}\w*\(", tests), f"{label(path)}: {name}"


def test_files_that_the_code_names_exist():
    for path in [*(ROOT / "kdjax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        for name in re.findall(r"\bdocs/\w+\.md", path.read_text()):
            assert (ROOT / name).exists(), f"{label(path)}: {name}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_page_is_in_a_table_of_contents():
    index = (DOCS / "index.md").read_text()
    trees = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = {line for tree in trees for line in tree.splitlines() if line and line[0] != ":"}
    assert listed == {path.stem for path in DOCS.glob("*.md")} - {"index"}


def test_the_catalogue_names_every_loss():
    text = (DOCS / "methods_and_terms.md").read_text()
    for name in (*terms.TERM_SPECS, *critics.names()):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("name", terms.TERM_SPECS)
def test_the_catalogue_has_the_defaults(name):
    """A row of a table of scalars ends with the defaults of the code."""
    rows = (DOCS / "methods_and_terms.md").read_text().splitlines()
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), "")
    for scalar, entry in terms.TERM_SPECS[name]().scalars.items():
        if row and "as `sinkhorn`" not in row:
            assert re.search(rf"`{scalar}`( \w)? {entry.default:g}\b", row), (name, scalar)


def test_the_catalogue_has_the_published_weights_and_the_results():
    """A line of config agrees with experiments/_methods.py, and the accuracies with the runs."""
    results = (ROOT / "experiments/results/digits_table/results.md").read_text().replace("\\", "")
    photographs = from_json(RunSummary, json.loads(gzip.decompress(PHOTOGRAPHS.read_bytes())))
    variants = {variant.name: variant for variant in photographs.variants}
    lines = (DOCS / "methods_and_terms.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.count(" | ") == 6]
    rows = {row[1].strip("`"): row for row in table}
    known = {name: spec().scalars for name, spec in terms.TERM_SPECS.items()}
    defaults = {n: getattr(s.get("weight"), "default", 1.0) for n, s in known.items()}
    defaults |= {n: s.get("weight", 1.0) for n, s in critics.term_scalars().items()}
    for key in METHODS:
        *_, config, _, accuracy, of_photographs = rows[key]
        cells = [line.split(" | ") for line in results.splitlines() if f"| {key} | student" in line]
        assert accuracy == cells[0][3].strip("*"), key
        mean, sd, _ = summarise(variants[key], "student", "accuracy", "test")
        assert of_photographs == f"{100 * mean:.1f} ± {100 * sd:.1f}", key
        method = following(key, stages_of("bn{}", (4, 6), same=False), warm=7)
        expected = dict(method["terms"])
        for critic in method["critics"].values():
            expected |= critic["terms"]
        for entry in re.findall(r'`(".*?)`', config):
            for term, stated in eval(f"{{{entry}}}", {"N": 7}).items():
                scalars = {"weight": defaults[term], **stated}
                published = {"weight": 1.0, **expected[term]}
                assert scalars == {name: published[name] for name in scalars}, (key, term)


def python_block(path, word):
    """The first Python block of a page that holds a word."""
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if word in block)


def test_the_configs_of_readme_and_sweeps_build():
    names = {}
    exec(python_block(ROOT / "README.md", "def get_config"), names)
    base = {**names["get_config"](), "devices": 1}
    assert list(build(base).variants[0].players) == ["teacher", "student"]
    for role in base["roles"].values():
        role["terms"] = {"ce": {}}
    config = types.SimpleNamespace(**base)
    exec(python_block(DOCS / "sweeps.md", "config.variants"), {"config": config})
    counts = {v.name: len(v.members) for v in build(vars(config)).variants}
    assert counts == {"alone": 9, "kd": 27, "smaller": 9}


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == kdjax.__version__
    assert f"\nversion: {kdjax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {kdjax.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
