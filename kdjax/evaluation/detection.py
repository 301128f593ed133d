"""Detection: average precision by COCO's own code, calibration of the scores, samples to draw.

It needs `pycocotools`: pip install "kdjax[detection]".
"""

import base64
import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from kdjax.data import DetectionSet
from kdjax.data.detection.coco import Photo
from kdjax.data.detection.dataset import resized
from kdjax.errors import UserError
from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predictions, Scores, Task
from kdjax.types import Batch, Outputs

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the order of COCO's summary
DRAWN = {"test": 4, "test_train": 2}  # split -> how many photographs the report draws
MIN_SCORE, MAX_BOXES = 0.3, 12  # lowest score and largest number of boxes drawn on a photograph
ANSWERS = ("box", "box_label", "box_mask", "crowd")  # entries of a batch to hide in evaluation


def to_photo(detections: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """Return the detections of one picture, without padding, [m, 6], in the picture's pixels.

    Args:
        detections: [detections, 7]: left, top, right, bottom in pixels of the network's input,
            score, class, 1 (0 in padding).
        size: height and width of the picture.
        side: height and width of the network's input.
    """
    real = np.asarray(detections, np.float64)[np.asarray(detections)[:, 6] > 0, :6]
    height, width = resized(size, side)
    real[:, 0:4:2] *= size[1] / width
    real[:, 1:4:2] *= size[0] / height
    return real


def detection_metrics(
    detections: np.ndarray,
    photos: Sequence[Photo],
    *,
    classes: int,
    side: int,
    num_bins: int = 15,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Score one network's detections on a split.

    "ap" is the mean over IoU .5, .55, ..., .95; "ap50" and "ap75" are at IoU .5 and .75;
    "ap_small", "ap_medium" and "ap_large" select objects by area (below 32^2, up to 96^2 and above,
    in pixels of the picture). A metric without objects is NaN. "detection_ece" is the expected
    calibration error of the scores: a detection is correct if COCO matches it with an object at IoU
    .5; detections matched with crowds are ignored. Without detections it is NaN.

    Args:
        detections: [pictures, detections, 7], as in `to_photo`.
        photos: the ground truth, in the same order.
        classes: number of classes, without background.
        side: height and width of the network's input.
        num_bins: number of equally wide bins of the calibration error.

    Returns:
        Metrics in [0, 1], and the reliability bins: "count", "accuracy", "confidence" [bins].

    Raises:
        UserError: pycocotools is missing.
        ValueError: the numbers of pictures and photos differ.
    """
    if len(detections) != len(photos):
        raise ValueError(f"detections of {len(detections)} pictures, but {len(photos)} photos")
    coco, coco_eval = _coco_classes()
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth, predicted = coco(), coco()
        images = [
            {"id": n, "height": p.size[0], "width": p.size[1]} for n, p in enumerate(photos, 1)
        ]
        common = {"images": images, "categories": [{"id": n} for n in range(classes)]}
        truth.dataset = {**common, "annotations": _truth(photos)}
        predicted.dataset = {**common, "annotations": _predicted(detections, photos, side)}
        truth.createIndex()
        predicted.createIndex()
        evaluation = coco_eval(truth, predicted, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats[: len(NAMES)]]
    metrics = {n: v if v >= 0 else float("nan") for n, v in zip(NAMES, values, strict=True)}
    bins = _reliability(evaluation.evalImgs, len(photos), num_bins)
    total = bins["count"].sum()
    gap = (bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])).sum()
    metrics["detection_ece"] = float(gap / total) if total else float("nan")
    return metrics, bins


def _coco_classes() -> tuple[Any, Any]:
    """Import pycocotools; called before a run as well, because it is needed at its end."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            'average precision needs pycocotools: pip install "kdjax[detection]"'
        ) from error
    return COCO, COCOeval


def _truth(photos: Sequence[Photo]) -> list[dict[str, Any]]:
    rows = []
    for number, photo in enumerate(photos, 1):
        for box, label, crowd, area in zip(
            photo.box, photo.label, photo.crowd, photo.area, strict=True
        ):
            row = _row(len(rows), number, box, label)
            rows.append(row | {"area": float(area), "iscrowd": int(crowd), "ignore": 0})
    return rows


def _predicted(detections: np.ndarray, photos: Sequence[Photo], side: int) -> list[dict[str, Any]]:
    rows = []
    for number, (packed, photo) in enumerate(zip(detections, photos, strict=True), 1):
        for detection in to_photo(packed, photo.size, side):
            row = _row(len(rows), number, detection[:4], detection[5])
            area = row["bbox"][2] * row["bbox"][3]
            rows.append(row | {"score": float(detection[4]), "area": area, "iscrowd": 0})
    return rows


def _row(rows: int, number: int, box: np.ndarray, label: Any) -> dict[str, Any]:
    left, top, right, bottom = (float(x) for x in box)
    return {
        "id": rows + 1,  # COCO's 0 means "no match"
        "image_id": number,
        "category_id": int(label),
        "bbox": [left, top, right - left, bottom - top],
    }


def _reliability(
    matches: Sequence[Mapping[str, Any] | None], pictures: int, num_bins: int
) -> dict[str, np.ndarray]:
    """Return the reliability bins of all detections at IoU .5, for objects of all sizes."""
    scores, correct = [np.zeros(0)], [np.zeros(0, bool)]
    ranges = 4  # ranges of areas, the first is "all"; the list is by class, range and picture
    for position, match in enumerate(matches):
        if match is None or position // pictures % ranges != 0:
            continue
        counted = ~np.asarray(match["dtIgnore"][0], bool)
        scores.append(np.asarray(match["dtScores"], float)[counted])
        correct.append(np.asarray(match["dtMatches"][0])[counted] > 0)
    score, hit = np.concatenate(scores), np.concatenate(correct)
    bin_index = np.clip(np.ceil(score * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bin_index, minlength=num_bins).astype(float)
    divisor = np.maximum(count, 1)
    return {
        "count": count,
        "accuracy": np.bincount(bin_index, hit, num_bins) / divisor,
        "confidence": np.bincount(bin_index, score, num_bins) / divisor,
    }


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the average precisions and the calibration error of each role."""
    return test_metrics(evaluation, predictions, fitted)[0]


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return the validation metrics and the reliability bins of the scores; nothing is fitted."""
    dataset: DetectionSet = evaluation.dataset
    photos, spec = dataset.photos[predictions.split], evaluation.spec
    scores: Scores = {}
    bins: Bins = {}
    for role, packed in predictions.outputs.items():
        members = [
            detection_metrics(
                np.asarray(detections).reshape(len(photos), -1, 7),
                photos,
                classes=spec.num_classes - 1,
                side=spec.shape[0],
                num_bins=evaluation.num_bins,
            )
            for detections in packed
        ]
        for name in members[0][0]:
            scores[f"{role}/{name}"] = np.array([values[name] for values, _ in members])
        names = members[0][1]
        bins[role] = {"before": {name: [b[name].tolist() for _, b in members] for name in names}}
    return scores, bins


def sample_detections(
    evaluation: EvalSpec, split: str, outputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return role -> photograph -> [left, top, right, bottom, score, class] of a few photographs.

    Args:
      evaluation: its data set holds the photographs.
      split: the split of the outputs; the result is {} for splits that are not drawn.
      outputs: detections by role, [members, pictures, detections x 7]; only the first member is
        drawn.
    """
    if split not in DRAWN:
        return {}
    dataset: DetectionSet = evaluation.dataset
    photos = dataset.photos[split][: DRAWN[split]]
    side = evaluation.spec.shape[0]
    samples = {}
    for role, members in outputs.items():
        rows = np.asarray(members[0]).reshape(len(members[0]), -1, 7)
        boxes = [to_photo(rows[n], photo.size, side) for n, photo in enumerate(photos)]
        samples[role] = [one[one[:, 4] >= MIN_SCORE][:MAX_BOXES].tolist() for one in boxes]
    return samples


def detection_panels(evaluation: EvalSpec, samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return photographs with their boxes, for `report.detections`.

    Args:
      evaluation: its data set holds the photographs.
      samples: title of a panel -> split -> photograph -> boxes, from `sample_detections`.
    """
    dataset: DetectionSet = evaluation.dataset
    names, pictures = evaluation.spec.class_names, []
    for split, count in DRAWN.items():
        for number, photo in enumerate(dataset.photos.get(split, ())[:count]):
            truth = [[*b, None, n] for b, n in zip(photo.box.tolist(), photo.label, strict=True)]
            panels = [{"title": "truth", "boxes": [_named_box(row, names) for row in truth]}]
            for title, splits in samples.items():
                if split in splits:
                    boxes = [_named_box(row, names) for row in splits[split][number]]
                    panels.append({"title": title, "boxes": boxes})
            height, width = photo.size
            title = f"{split}: {photo.file.rsplit('/', 1)[-1]}"
            jpeg = _jpeg(dataset.open(photo))
            pictures.append(
                {"title": title, "width": width, "height": height, "jpeg": jpeg, "panels": panels}
            )
    return pictures


def _named_box(row: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    *box, score, number = row
    return {"box": box, "score": score, "class": int(number), "name": names[int(number)]}


def _jpeg(image: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()


def hide_boxes(batch: Batch) -> Batch:
    """Remove the boxes: a detector would sample regions around them."""
    return {name: value for name, value in batch.items() if name not in ANSWERS}


def detections(outputs: Outputs) -> jax.Array:
    """Return the flattened detections of each picture, [batch, detections x 7]."""
    packed = outputs.features["detections"]
    return packed.reshape(packed.shape[0], -1)


def check_detector(name: str) -> None:
    """Refuse a network that is no detector."""
    if name != "faster_rcnn":
        raise UserError(f"is {name!r}, but the data has boxes; use faster_rcnn")


TASK = Task(
    metrics=lambda spec: {**dict.fromkeys(NAMES, True), "detection_ece": False},
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
    collect=detections,
    hide_answers=hide_boxes,
    check_network=check_detector,
    samples=sample_detections,
    panels=detection_panels,
    check_installed=_coco_classes,
    rows_are_examples=False,
)
