"""A detector from a folder detects in raw pictures what the run's evaluation detects."""

import csv

import jax
import numpy as np
import pytest
from PIL import Image

import kdjax
from kdjax import cli, data, models
from kdjax.data.options import BatchOptions, DetectionOptions, SplitOptions
from kdjax.errors import UserError
from kdjax.evaluation.detection import hide_boxes, to_photo
from kdjax.evaluation.detector_predictor import BATCH_SIZE, Detector
from kdjax.models.io import export
from tests.data import tiny_coco
from tests.experiment.run.test_detection import NETWORK


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export a detector with random weights: (folder, data set, its packed detections on test)."""
    folder = tmp_path_factory.mktemp("detector")
    path = str(tiny_coco.write(folder / "coco", {"train": 4, "val": 2}))
    options = DetectionOptions(path=path, image_size=64, max_boxes=3)
    dataset = data.read_detection(options, BatchOptions(2, 2), SplitOptions(validation=1))
    spec = dataset.source.spec
    network = {k: v for k, v in NETWORK.items() if k != "name"}
    model = models.build("faster_rcnn", num_classes=spec.num_classes, **network)
    batch = hide_boxes(data.prepare(spec)(next(dataset.source.evals["test"]())))
    variables = jax.jit(model.init)(jax.random.key(3), batch)
    export.save(folder / "export", variables, {"model": NETWORK, **spec._asdict()})
    outputs, _ = jax.jit(lambda v, b: model.apply(v, b, train=False))(variables, batch)
    return folder / "export", dataset, np.asarray(outputs.features["detections"])


@pytest.mark.long
def test_detections_are_those_of_the_evaluation(exported):
    folder, dataset, packed = exported
    photos = dataset.photos["test"]
    results = kdjax.load(folder)([dataset.open(photo) for photo in photos])
    assert len(results) == 2
    for rows, photo, (boxes, scores, labels) in zip(packed, photos, results, strict=True):
        expected = to_photo(rows, photo.size, 64)
        assert len(expected) == len(boxes) > 0
        order = np.argsort(-expected[:, 4], kind="stable")
        np.testing.assert_allclose(boxes, expected[order, :4], rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(scores, expected[order, 4], rtol=1e-4)
        assert set(labels) <= {"red", "blue"}
        height, width = photo.size
        assert (boxes >= -0.01).all()
        assert (boxes <= np.array([width, height] * 2) + 0.01).all()


@pytest.mark.long
def test_predict_writes_a_line_for_each_object(exported, tmp_path):
    folder, dataset, _ = exported
    photos = dataset.photos["test"]
    for photo in photos:
        Image.fromarray(dataset.open(photo)).save(tmp_path / photo.file.rsplit("/", 1)[-1])
    out = tmp_path / "objects.csv"
    assert cli.main(["predict", f"--model={folder}", f"--input={tmp_path}", f"--out={out}"]) == 0
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    results = kdjax.load(folder)([dataset.open(photo) for photo in photos])
    assert len(rows) == sum(len(result.scores) for result in results)
    assert [float(row["score"]) for row in rows[: len(results[0].scores)]] == pytest.approx(
        results[0].scores.tolist(), abs=1e-6
    )
    assert list(rows[0]) == ["input", "prediction", "score", "left", "top", "right", "bottom"]


def stub(variables, batch):
    """Detect, in the input's pixels, one object of class 1 and a better one of class 0."""
    assert batch["image"].shape == (BATCH_SIZE, 64, 64, 3)
    row = [[2, 4, 6, 8, 0.5, 1, 1], [0, 0, 16, 16, 0.9, 0, 1], [0, 0, 0, 0, 0, 0, 0]]
    return np.array([row] * BATCH_SIZE, np.float32)


def test_boxes_are_in_the_pixels_of_each_picture_and_sorted_by_score():
    detector = Detector(stub, None, ("red", "blue"), {"shape": [64, 64, 3]})
    pictures = [np.zeros((side, 2 * side, 3), np.uint8) for side in range(16, 16 + BATCH_SIZE + 1)]
    results = detector(pictures)
    assert len(results) == len(pictures)
    for picture, (boxes, scores, labels) in zip(pictures, results, strict=True):
        assert labels == ("red", "blue")
        np.testing.assert_allclose(scores, [0.9, 0.5], rtol=1e-6)
        factor = picture.shape[1] / 64  # the longer side becomes 64
        np.testing.assert_allclose(boxes[1, [0, 2]], [2 * factor, 6 * factor], rtol=1e-6)
        np.testing.assert_allclose(boxes[1, [1, 3]], [4 * factor, 8 * factor], rtol=0.05)
    assert detector([]) == []


def test_a_grey_picture_is_refused():
    detector = Detector(stub, None, ("red", "blue"), {"shape": [64, 64, 3]})
    with pytest.raises(UserError, match=r"picture 1 is uint8 \(4, 4\); give uint8"):
        detector([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)])
