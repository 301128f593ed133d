"""The commands of the command line, from `list` to `report`."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import kdjax
from kdjax import cli, models
from kdjax.distill import critics, terms
from kdjax.experiment.build.build import build
from kdjax.experiment.run.workdir import read_config
from kdjax.report import tables
from kdjax.report.results import to_json
from kdjax.report.statistics import summarise
from tests.faults.commands import base, experiment, refused, train

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEMPERATURE = "roles.student.terms.balanced_kl.temperature"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train BD-KD at two temperatures, then a student of the frozen teacher of the first."""
    folder = tmp_path_factory.mktemp("trained")
    frozen = {"terms": {"ce": None}, "from_variant": "both"}
    config = base(
        num_steps=6,
        eval_every=3,
        variants={"both": {}, "offline": {"roles.teacher": frozen}},
        sweep={TEMPERATURE: (1.0, 3.0)},
    )
    file = experiment(folder, config, title="Two ways.")
    reports = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "show_tables", reports.append)
        assert cli.main(train(file, folder / "run")) == 0
    return folder / "run", reports[0]


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_its_files(trained):
    workdir, summary = trained
    assert {p.name for p in workdir.iterdir() if p.name[0] != "."} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "report.json",
        "report.html",
    }
    report = json.loads((workdir / "report.json").read_text())
    assert report == to_json(summary)
    assert report["title"] == "Two ways."
    assert report["complete"]
    assert [v["name"] for v in report["variants"]] == ["both", "offline"]
    assert "python -m kdjax train" in report["command"]
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["num_steps"] == 6
    assert config["config"]["roles"]["student"]["optimizer"]["momentum"] == 0.9  # resolved
    assert {"python", "jax", "flax", "kdjax"} <= set(config["versions"])
    page = (workdir / "report.html").read_text()
    assert "Two ways." in page
    assert "<script" not in page


def test_the_pinned_keys_of_metrics(trained):
    rows = lines(trained[0])
    assert {line["split"] for line in rows} == {"train", "validation", "test"}
    for line in rows:
        assert list(line)[:4] == ["step", "split", "variant", "member"]
        assert line["variant"] in ("both", "offline")
        assert line["seed"] == 0
        assert line[TEMPERATURE] == (1.0, 3.0)[line["member"]]
        assert 0 <= line["student/accuracy"] <= 1
        if line["split"] != "train":
            for role in ("teacher", "student"):
                assert {f"{role}/{name}" for name in ("ece", "nll", "brier")} <= set(line)
        else:
            assert {"student/loss", "student/ce/raw", "student/balanced_kl/weighted"} <= set(line)
    train_steps = [x["step"] for x in rows if x["split"] == "train" and x["variant"] == "both"]
    assert train_steps == [2, 2, 4, 4, 6, 6]
    # the offline teacher is frozen: its metrics on a split never change
    teacher = {
        (x["split"], x["teacher/nll"])
        for x in rows
        if x["variant"] == "offline" and x["split"] != "train"
    }
    assert len(teacher) == 2


def test_lines_of_a_single_run_have_no_variant_and_member(tmp_path, no_page):
    config = experiment(tmp_path, base(num_steps=2))
    assert cli.main(train(config, tmp_path / "run")) == 0
    for line in lines(tmp_path / "run"):
        assert not {"variant", "member", "seed"} & set(line)
        assert list(line)[:2] == ["step", "split"]
    assert [x["step"] for x in lines(tmp_path / "run") if x["split"] == "train"] == [2]


@pytest.fixture
def no_page(monkeypatch):
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")


def test_eval_gives_the_numbers_of_the_report(trained, monkeypatch):
    workdir, report = trained
    before = (workdir / "metrics.jsonl").read_bytes()
    reports = []
    monkeypatch.setattr(tables, "show_tables", reports.append)
    assert cli.main(["eval", f"--workdir={workdir}"]) == 0
    assert to_json(reports[0].variants) == to_json(report.variants)
    assert reports[0].selection == report.selection
    assert reports[0].complete
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_eval_scores_corrupted_images(trained, monkeypatch, capsys):
    workdir, report = trained
    assert cli.main(["eval", f"--workdir={workdir}", "--corruptions"]) == 0
    out = capsys.readouterr().out
    table = out[out.index("test images under corruptions") :]
    for word in ("accuracy %, clean", "accuracy %, corrupted", "noise", "blur", "rotation"):
        assert word in table.splitlines()[1]
    rows = [line for line in table.splitlines() if line.startswith("both")]
    assert len(rows) == len(report.variants[0].chosen)
    # the columns of clean images are those of the report
    mean = summarise(report.variants[0], "student", "accuracy")
    assert f"{100 * mean.mean:.2f}" in next(row for row in rows if "student" in row)


def test_eval_on_other_data_keeps_the_choice_and_the_temperature(trained, monkeypatch, capsys):
    workdir, report = trained
    reports = []
    monkeypatch.setattr(tables, "show_tables", reports.append)
    argv = ["eval", f"--workdir={workdir}"]
    assert cli.main([*argv, "--config.data.split_seed=7"]) == 0
    count = build(read_config(workdir)).source.size["test"]
    line = f"examples of --config.data: {count} of test; choices are by the run's own data"
    assert line in capsys.readouterr().err
    for own, other in zip(report.variants, reports[0].variants, strict=True):
        assert other.chosen == own.chosen
        for one, two in zip(own.members, other.members, strict=True):
            assert two.results["validation"] == one.results["validation"]
            assert two.results["test"] != one.results["test"]
            name = "student/temperature"
            assert two.results["test"][name] == one.results["test"][name]
    refused(capsys, [*argv, "--config.data.num_classes=4"], "num_classes 4, but the run has 3")
    refused(capsys, [*argv, "--config.seed=4"], "--config.seed=4: eval takes --config.data.KEY")


def test_report_prints_a_table(trained, capsys):
    tables.show_tables(trained[1])
    out = capsys.readouterr().out
    for word in ("both", "offline", "student", "teacher (frozen)", "accuracy", "ECE", "NLL"):
        assert word in out
    variant = trained[1].variants[0]
    best = variant.chosen["student"].members[0]
    accuracy = variant.members[best].results["test"]["student/accuracy"]
    assert f"{100 * accuracy:.2f}" in out


def test_report_combines_two_runs_in_one_page(trained, tmp_path, capsys):
    out = tmp_path / "deep" / "all.html"
    assert cli.main(["report", str(trained[0]), str(trained[0]), f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().err
    assert out.read_text().count("Two ways.") >= 2


def test_list_contains_all_names(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["list"]) == 0
    out, err = capsys.readouterr()
    assert not err
    for name in (*models.names(), *terms.TERM_SPECS, "digits", "cifar100", "adamw"):
        assert name in out
    assert re.search(r"experiments/digits_compare\.py\s+Accuracy and calibration", out)
    for key in (
        "num_steps = 1000",
        "roles.<role>.checkpoint = null",
        "roles.<role>.terms.<term>.weight",
    ):
        assert key in out


def test_list_losses_prints_a_line_each(capsys):
    assert cli.main(["list", "losses"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == [*terms.TERM_SPECS, *critics.names()]
    assert all(len(line.split()) > 3 for line in lines)


def test_list_config_prints_the_schema(capsys):
    assert cli.main(["list", "config"]) == 0
    out, err = capsys.readouterr()
    assert not err
    for row in (
        r"  num_steps = 1000 +Steps of the run\. \[int, >= 1\]\n",
        r"  eval_crop = null +image_size / [^\[]* \[float or None, > 0 and <= 1\]\n",
        r"\nroles\.<role>\.terms\.<term>\.\n",
        r"\n  balanced_kl +temperature = 1\.0 \[float, > 0\]; emphasis = 2\.0 \[float, > 0\];\n",
        r"\nroles\.<role>\.adapters\.<adapter: fusion>\.\n  kind ",
    ):
        assert re.search(row, out), row
    assert max(map(len, out.splitlines())) <= 100
    assert "models: " not in out


def test_list_describes_a_name(capsys):
    assert cli.main(["list", "balanced_kl"]) == 0
    assert "emphasis = 2.0" in capsys.readouterr().out
    assert cli.main(["list", "balancd_kl"]) == 2
    assert "did you mean balanced_kl" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"kdjax {kdjax.__version__}\n"


def test_list_works_in_any_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "broken.py").write_text("def get_config(:\n")
    assert cli.main(["list"]) == 0
    assert "experiments/broken.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--help"], ("train", "eval", "export", "report", "list", "Exit status", "resumes")),
        (["train", "--help"], ("--config", "--workdir", "--config.key=value")),
        (["eval", "--help"], ("--workdir",)),
        (["export", "--help"], ("--role", "--out", "--variant", "--member")),
        (["report", "--help"], ("--out",)),
    ],
)
def test_help(argv, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)


def test_overrides_apply_to_the_run(tmp_path, no_page):
    """Run the command of the README with fewer steps."""
    file = ROOT / "experiments" / "digits_bdkd.py"
    flags = (
        f"--config.{TEMPERATURE}=4",
        "--config.num_steps=2",
        "--config.devices=1",
        "--config.tensorboard=false",
        "--config.roles.student.model.hidden=(8,)",
        "--config.roles.student.optimizer.clip_norm=5",
        "--config.data.limit=200",
    )
    assert cli.main(train(file, tmp_path / "run", *flags)) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    student = config["roles"]["student"]
    assert student["terms"]["balanced_kl"]["temperature"] == 4.0
    assert student["model"]["hidden"] == [8]
    assert student["optimizer"]["clip_norm"] == 5
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["data"]["sizes"]["train"] == 200
    assert report["variants"][0]["roles"]["student"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    # the weight includes T^2 = 16
    (line,) = [x for x in lines(tmp_path / "run") if x["split"] == "train"]
    raw, weighted = (line[f"student/balanced_kl/{name}"] for name in ("raw", "weighted"))
    assert weighted == pytest.approx(16 * raw, rel=1e-6)


def test_the_process_has_the_exit_status(tmp_path):
    """Run `python -m kdjax` as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "kdjax", "eval", f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize("moment", ["configure_process", "_parser"])
def test_an_interrupt_outside_training_is_one_line(moment):
    code = f"""
import os, signal, sys
from kdjax import cli
sys.argv = ["kdjax", "list"]
cli.{moment} = lambda: os.kill(os.getpid(), signal.SIGINT)
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"kdjax: interrupted\n")


def test_a_platform_that_is_not_there(tmp_path):
    argv = train(experiment(tmp_path, base()), tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "kdjax", *argv],
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "kdjax: JAX_PLATFORMS=cuda: this machine has no such device; unset it"
    ]


def test_the_report_holds_the_loss_of_a_role_and_who_chose(trained):
    both, offline = trained[1].variants
    assert both.roles["student"].loss == "ce + T^2 balanced_kl(teacher, T swept)"
    assert offline.roles["teacher"].loss is None
    assert both.chosen["teacher"].judge == "student"
