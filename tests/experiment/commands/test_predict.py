"""Predictions from raw files have the accuracy of the run's report; exports run without kdjax."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import kdjax
from kdjax import cli
from kdjax.experiment.commands import predict
from tests.evaluation.test_predictor import text_export
from tests.faults.commands import base, experiment, refused, train

SIDE = 6  # pictures of 8 x 8 pixels are resized


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Train an MLP on pictures of digits for a few steps: (folder, report, row of the student)."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    for row, (image, label) in enumerate(zip(digits.images[:400], digits.target, strict=False)):
        place = folder / "pictures" / ("test" if row % 2 else "train") / f"digit {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15 * image).astype(np.uint8)).save(place / f"{row}.png")
    settings = base(
        num_steps=80,
        checkpoint_every=0,
        data={"name": "folder", "path": str(folder / "pictures"), "image_size": SIDE},
        roles__teacher=None,
        roles__student__terms={"ce": {}},
        roles__student__model__hidden=(16,),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(experiment(folder, settings), folder / "run")) == 0
    argv = ["export", f"--workdir={folder / 'run'}", "--role=student"]
    assert cli.main([*argv, f"--out={folder / 'student'}"]) == 0
    report = json.loads((folder / "run" / "report.json").read_text())
    return folder, report["variants"][0]["members"][0]["results"]["test"]


def test_predict_has_the_accuracy_and_the_temperature_of_the_report(exported, capsys):
    folder, scores = exported
    out, files = folder / "predictions.csv", folder / "pictures" / "test"
    argv = ["predict", f"--model={folder / 'student'}", f"--input={files}", f"--out={out}"]
    assert cli.main(argv) == 0
    assert f"200 predictions -> {out}" in capsys.readouterr().err
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    truth = [row["input"].split("/")[-2] for row in rows]
    right = np.mean([row["prediction"] == name for row, name in zip(rows, truth, strict=True)])
    assert right == pytest.approx(scores["student/accuracy"], abs=1e-7)
    assert 0.3 < right < 1
    nll = -np.mean([np.log(float(row[name])) for row, name in zip(rows, truth, strict=True)])
    assert nll == pytest.approx(scores["student/nll_calibrated"], rel=1e-3)  # six digits in a .csv
    assert [float(row["confidence"]) for row in rows] == pytest.approx(
        [max(float(row[f"digit {number}"]) for number in range(10)) for row in rows]
    )


def test_a_folder_predicts_arrays_of_any_size(exported):
    folder, scores = exported
    predictor = kdjax.load(folder / "student")
    assert predictor.temperature == scores["student/temperature"] != 1
    pictures = sorted((folder / "pictures" / "test").rglob("*.png"))[:9]
    images = [np.asarray(Image.open(picture)) for picture in pictures]
    together = predictor(images)
    assert together.probabilities.shape == (9, 10)
    np.testing.assert_allclose(together.probabilities.sum(1), 1, rtol=1e-6)
    alone = predictor(images[3:4])
    np.testing.assert_allclose(alone.logits[0], together.logits[3], rtol=1e-5, atol=1e-6)
    assert alone.labels[0] == together.labels[3]
    np.savez(folder / "images.npz", image=np.stack(images))
    argv = ["predict", f"--model={folder / 'student'}", f"--input={folder / 'images.npz'}"]
    assert cli.main([*argv, f"--out={folder / 'npz.csv'}"]) == 0
    lines = (folder / "npz.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == list(together.labels)
    np.save(folder / "one.npy", np.atleast_3d(images[0]))  # [height, width, channel]
    one = [*argv[:2], f"--input={folder / 'one.npy'}", f"--out={folder / 'one.csv'}"]
    assert cli.main(one) == 0
    assert len((folder / "one.csv").read_text().splitlines()) == 2


PROCESS = """
import sys
from pathlib import Path
import numpy as np
from jax import export
predict = export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
images = np.load(sys.argv[2])
np.save(sys.argv[3], predict.call(images))
assert not [name for name in sys.modules if name.startswith(("kdjax", "flax"))]
"""


def test_stablehlo_runs_in_a_process_without_kdjax(exported):
    pytest.importorskip("flatbuffers")
    folder, _ = exported
    argv = ["export", f"--workdir={folder / 'run'}", "--role=student", "--format=stablehlo"]
    assert cli.main([*argv, f"--out={folder / 'program'}"]) == 0
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 1), np.uint8)
    np.save(folder / "in.npy", images)
    paths = [folder / "program" / "model.stablehlo", folder / "in.npy", folder / "out.npy"]
    subprocess.run([sys.executable, "-c", PROCESS, *map(str, paths)], check=True, cwd=folder)
    expected = kdjax.load(folder / "student")(images).probabilities
    np.testing.assert_allclose(np.load(paths[2]), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("nothing.png", ("--input=", "nothing.png: no such file")),
        ("run", ("run holds no pictures",)),
        ("experiment.py", ("experiment.py is not a readable picture",)),
        ("numbers.npy", ("image 0 holds float64", "uint8")),
        ("others.npz", ("holds no image, x_test, x",)),
    ],
)
def test_one_line_refuses_what_is_no_input(files, words, exported, capsys):
    folder, _ = exported
    np.save(folder / "numbers.npy", np.zeros((2, 8, 8)))
    np.savez(folder / "others.npz", other=np.zeros(2))
    argv = ["predict", f"--model={folder / 'student'}", f"--input={folder / files}"]
    refused(capsys, [*argv, f"--out={folder / 'bad.csv'}"], *words)


def test_an_output_is_written_only_when_it_is_whole(exported, capsys):
    folder, _ = exported
    np.save(folder / "numbers.npy", np.zeros((2, 8, 8)))
    before = (folder / "numbers.npy").read_bytes()
    argv = ["predict", f"--model={folder / 'student'}", f"--input={folder / 'numbers.npy'}"]
    refused(capsys, [*argv, f"--out={folder / 'numbers.npy'}"], "is an input, too")
    assert (folder / "numbers.npy").read_bytes() == before
    (folder / "old.csv").write_text("precious\n")
    argv = ["predict", f"--model={folder / 'student'}", f"--input={folder / 'none.npy'}"]
    refused(capsys, [*argv, f"--out={folder / 'old.csv'}"], "no such file")
    assert (folder / "old.csv").read_text() == "precious\n"
    assert not [*folder.glob("*.part")]


def test_one_line_refuses_what_is_no_export(exported, capsys):
    folder, _ = exported
    argv = ["predict", f"--input={folder}", f"--out={folder / 'bad.csv'}"]
    refused(capsys, [*argv, f"--model={folder / 'pictures'}"], "holds no config.json")
    refused(capsys, [*argv, f"--model={folder / 'run'}"], "is the workdir of a run", "export")


def test_lines_and_cells_are_those_that_training_reads(tmp_path):
    (tmp_path / "a.txt").write_text("first\u2028still first\r\nsecond\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(
        'text,label\n"good\nfilm",1\nbad\u2028one,0\n', encoding="utf-8"
    )
    lines, rows = (list(predict._texts(tmp_path / name, None)) for name in ("a.txt", "a.csv"))
    assert lines == [
        (f"{tmp_path}/a.txt:1", "first\u2028still first"),
        (f"{tmp_path}/a.txt:2", "second"),
    ]
    assert [row["text"] for _, row in rows] == ["good\nfilm", "bad\u2028one"]


def test_files_of_texts(tmp_path, capsys):
    folder = tmp_path / "scores"
    text_export(folder, "glue/stsb", 1)
    pairs = [("a film", "the film"), ("bad", "good")]
    expected = [f"{value:.7g}" for value in kdjax.load(folder)(pairs).logits[:, 0]]
    rows = [{"sentence1": first, "sentence2": second} for first, second in pairs]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "in.csv").write_text("sentence1,sentence2\na film,the film\nbad,good\n")
    (tmp_path / "in.tsv").write_text("sentence2\tsentence1\nthe film\ta film\ngood\tbad\n")
    argv = ["predict", f"--model={folder}", f"--out={tmp_path / 'out.csv'}"]
    for name in ("in.jsonl", "in.csv", "in.tsv"):
        assert cli.main([*argv, f"--input={tmp_path / name}"]) == 0
        with (tmp_path / "out.csv").open(newline="") as opened:
            table = list(csv.DictReader(opened))
        assert [row["value"] for row in table] == expected
        assert table[1]["input"] == f"{tmp_path / name}:2"
    (tmp_path / "in.txt").write_text("a film\n")
    refused(capsys, [*argv, f"--input={tmp_path / 'in.txt'}"], "text 0 has 1 parts", "a pair")
    (tmp_path / "in.jsonl").write_text('{"sentence1": "a"}\n[1]\n')
    words = "in.jsonl line 2 is a list; give a JSON object"
    refused(capsys, [*argv, f"--input={tmp_path / 'in.jsonl'}"], words)
    refused(capsys, [*argv, f"--input={tmp_path / 'scores'}"], "scores: no such file")
