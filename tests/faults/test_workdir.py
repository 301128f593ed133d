"""Workdirs that are in use, of another run, not writable or not a workdir."""

import json
import shutil

import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.config import resolve
from kdjax.experiment.run import workdir
from tests.faults.commands import base, experiment, refused, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train two variants of two members: (config, workdir)."""
    folder = tmp_path_factory.mktemp("trained")
    settings = base(variants={"a": {}, "b": {}}, sweep={"seed": (0, 1)}, num_steps=2)
    config = experiment(folder, settings)
    assert cli.main(train(config, folder / "run")) == 0
    return config, folder / "run"


def test_a_second_process_is_an_error(trained, capsys):
    config, folder = trained
    with workdir.occupy(folder):
        refused(capsys, train(config, folder), str(folder), "in use", keep=folder)
    with workdir.occupy(folder):  # then it is free again
        pass


def test_another_config_is_an_error_that_names_the_keys(trained, capsys):
    config, folder = trained
    flags = ("--config.num_steps=3", "--config.roles.student.optimizer.momentum=0.5")
    words = (
        f"workdir {folder} contains a run with another config",
        "num_steps: 2 -> 3",
        "roles.student.optimizer.momentum: 0.9 -> 0.5",
    )
    line = refused(capsys, train(config, folder, *flags), *words, keep=folder)
    assert "batch_size" not in line
    swept = "--config.sweep.seed=(0,1,2)"
    refused(capsys, train(config, folder, swept), "sweep.seed: [0, 1] -> [0, 1, 2]", keep=folder)


def test_keys_that_change_no_number_may_change(trained, capsys):
    config, folder = trained
    before = (folder / "metrics.jsonl").read_bytes()
    assert cli.main(train(config, folder, "--config.checkpoint_every=1")) == 0
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_of_the_keys_of_the_data_only_workers_may_change(tmp_path):
    def settings(**changes):
        return resolve.from_dict({**base(**changes), "roles": {}})

    workdir.adopt(tmp_path, settings(), "train", {})
    workdir.adopt(tmp_path, settings(data__workers=2), "train", {})
    with pytest.raises(UserError, match=r"another config: data\.validation: 0\.1 -> 0\.3\. Use"):
        workdir.adopt(tmp_path, settings(data__workers=2, data__validation=0.3), "train", {})


def test_a_workdir_of_an_older_version_has_fewer_keys(trained, tmp_path, capsys):
    config, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    stored = json.loads((folder / "config.json").read_text())
    del stored["config"]["precision"], stored["config"]["roles"]["student"]["input"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    assert cli.main(train(config, tmp_path / "run")) == 0
    flag, words = "--config.precision=bfloat16", "precision: 'float32' -> 'bfloat16'. Use"
    refused(capsys, train(config, tmp_path / "run", flag), f"another config: {words}")
    stored["config"]["removed"] = 1
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    refused(capsys, train(config, tmp_path / "run"), "removed: 1 -> '(unset)'")


def test_a_finished_run_is_not_trained_again(trained, capsys, monkeypatch):
    config, folder = trained
    monkeypatch.setattr("kdjax.experiment.run.train._train_group", None)
    before = json.loads((folder / "report.json").read_text())
    assert cli.main(train(config, folder)) == 0
    assert json.loads((folder / "report.json").read_text())["variants"] == before["variants"]


def test_a_workdir_that_is_not_writable(tmp_path, capsys):
    config = experiment(tmp_path, base())  # root may write anywhere except below a file
    argv = train(config, config / "run")
    refused(capsys, argv, f"workdir {config / 'run'} cannot be written", keep=tmp_path)


def test_an_address_of_another_kind_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "s3:" would be a local folder
    argv = train(experiment(tmp_path, base()), "s3://bucket/run")
    refused(capsys, argv, "is an address", "gs://bucket/path", keep=tmp_path)


def test_a_folder_of_other_files(tmp_path, capsys):
    config = experiment(tmp_path, base())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("mine\n")
    refused(capsys, train(config, tmp_path / "run"), "no config.json", keep=tmp_path / "run")


@pytest.mark.parametrize("exists", [True, False])
def test_commands_on_a_folder_without_a_run(exists, tmp_path, capsys):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    out = tmp_path / "out"
    where = f"--workdir={folder}"
    refused(capsys, ["eval", where], str(folder), "config.json")
    refused(capsys, ["export", where, "--role=student", f"--out={out}"], "config.json")
    refused(capsys, ["report", folder, f"--out={out}"], str(folder), "report.json")
    assert folder.exists() == exists
    assert not out.exists()


def test_an_unfinished_run(tmp_path, capsys):
    config = experiment(tmp_path, base())
    folder = tmp_path / "run"
    from kdjax.experiment.commands import overrides

    folder.mkdir()
    workdir.adopt(folder, overrides.read(str(config), []).config, "train", {})
    where = f"--workdir={folder}"
    refused(capsys, ["eval", where], str(folder), "train first")
    out = tmp_path / "out"
    refused(capsys, ["export", where, "--role=student", f"--out={out}"], "train first")
    refused(capsys, ["report", folder], str(folder), "kdjax train")
    assert not out.exists()


def test_exports_of_missing_members_and_roles(trained, tmp_path, capsys):
    _, folder = trained
    out = tmp_path / "out"

    def refuse(*flags, words):
        argv = ["export", f"--workdir={folder}", f"--out={out}", *flags]
        refused(capsys, argv, *words, keep=folder)
        assert not out.exists()

    refuse("--role=student", words=("--variant is not set", "a, b"))
    refuse("--role=student", "--variant=c", words=("--variant=c", "a, b"))
    refuse("--role=pupil", "--variant=a", words=("--role=pupil", "teacher, student"))
    for member in ("2", "-1"):
        flags = ("--role=student", "--variant=a", f"--member={member}")
        refuse(*flags, words=(f"--member={member}", "0 to 1"))


def test_an_export_never_replaces_another(trained, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["export", f"--workdir={trained[1]}", "--role=student", "--variant=a", f"--out={out}"]
    assert cli.main(argv) == 0
    refused(capsys, [*argv, "--member=1"], str(out), "already holds", keep=out)
    (out / "model.safetensors").unlink()  # a config.json alone is not replaced either
    refused(capsys, argv, str(out), "already holds config.json", keep=out)


def test_an_export_into_a_file(trained, tmp_path, capsys):
    out = tmp_path / "file"
    out.write_text("mine")
    argv = ["export", f"--workdir={trained[1]}", "--role=student", "--variant=a", f"--out={out}"]
    refused(capsys, argv, str(out), "cannot be written", keep=tmp_path)


def test_a_report_that_is_not_writable(trained, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    refused(capsys, ["report", trained[1], f"--out={file}/r.html"], str(file), keep=tmp_path)


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "COMMAND"),
        (["trian"], "trian"),
        (["train", "--workdir=x"], "--config"),
        (["train", "--config=x"], "--workdir"),
        (["eval", "--workdir=x", "--role=student"], "--role"),
        (["export", "--workdir=x", "--role=student"], "--out"),
        (["export", "--workdir=x", "--role=student", "--out=y", "--member=one"], "--member"),
        (["report"], "workdirs"),
        (["eval", "--workdir="], "--workdir: is empty"),
    ],
)
def test_an_unknown_command(argv, word, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_runs_that_are_not_finished_are_left_out(trained, tmp_path, capsys):
    stopped, study, other = (tmp_path / name for name in ("stopped", "study", "other"))
    for folder, names in ((stopped, ("config", "metrics")), (study, ("study",)), (other, ())):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.json").write_text("{}")
    (stopped / "metrics.json").rename(stopped / "metrics.jsonl")
    refused(capsys, ["report", stopped], str(stopped), "is not finished", keep=tmp_path)
    argv = ["report", stopped, trained[1], study, other, f"--out={tmp_path}/all.md"]
    assert cli.main(list(map(str, argv))) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["left out"] * 3 + ["report"]
    assert "contains a study" in lines[1]
    assert "contains no report.json" in lines[2]
    assert (tmp_path / "all.md").read_text().count("## ") == 1
