"""Average precision as COCO measures it, by its own code, and how far confidences can be trusted.

`pycocotools` comes with the extra: pip install "kdjax[detection]".
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data.detection.coco import Photo
from kdjax.data.detection.dataset import resized
from kdjax.types import UserError

__all__ = ["check_installed", "detection_metrics", "to_photo"]

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the order of COCO's summary


def check_installed() -> None:
    """Refuse to begin what could not be measured in the end.

    Raises:
        UserError: pycocotools is missing.
    """
    _tools()


def to_photo(found: np.ndarray, photo: Photo, side: int) -> np.ndarray:
    """Bring the real detections of one picture, [m, 6], to the picture's own pixels.

    Args:
        found: [detections, 7]: left, top, right, bottom in pixels of the network's input, score,
            class, 1 if it is real.
        photo: the picture.
        side: of the network's input.
    """
    kept = np.asarray(found, np.float64)[np.asarray(found)[:, 6] > 0, :6]
    height, width = resized(photo.size, side)
    kept[:, 0:4:2] *= photo.size[1] / width
    kept[:, 1:4:2] *= photo.size[0] / height
    return kept


def detection_metrics(
    found: np.ndarray, photos: Sequence[Photo], *, classes: int, side: int, num_bins: int = 15
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Measure one network's detections on a split.

    "ap" is the mean over IoU .5, .55, ..., .95, "ap50" and "ap75" at one, the last three by the
    objects' area (below 32^2, to 96^2, above, pixels of the picture); NaN where a split has no such
    object. "detection_ece" is the expected calibration error of the scores: a detection is right if
    COCO matches it with an object at IoU .5; those matched with crowds do not count.

    Args:
        found: [pictures, detections, 7], as `to_photo` takes them.
        photos: the truth, in the same order.
        classes: how many, without background.
        side: of the network's input.
        num_bins: of the calibration error, equally wide.

    Returns:
        Metrics in [0, 1], and the reliability bins: "count", "accuracy", "confidence" [bins].

    Raises:
        UserError: pycocotools is missing.
        ValueError: as many pictures are not as many photos.
    """
    if len(found) != len(photos):
        raise ValueError(f"detections of {len(found)} pictures, but {len(photos)} photos")
    coco, evaluate = _tools()
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        truth, said = coco(), coco()
        images = [
            {"id": n, "height": p.size[0], "width": p.size[1]} for n, p in enumerate(photos, 1)
        ]
        common = {"images": images, "categories": [{"id": n} for n in range(classes)]}
        truth.dataset = {**common, "annotations": _truth(photos)}
        said.dataset = {**common, "annotations": _said(found, photos, side)}
        truth.createIndex()
        said.createIndex()
        judge = evaluate(truth, said, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    values = [float(value) for value in judge.stats[: len(NAMES)]]
    metrics = {n: v if v >= 0 else float("nan") for n, v in zip(NAMES, values, strict=True)}
    bins = _reliability(judge.evalImgs, len(photos), num_bins)
    total = max(bins["count"].sum(), 1)
    gap = np.abs(bins["accuracy"] - bins["confidence"])
    metrics["detection_ece"] = float((bins["count"] * gap).sum() / total)
    return metrics, bins


def _tools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            'average precision is measured by pycocotools: pip install "kdjax[detection]"'
        ) from error
    return COCO, COCOeval


def _truth(photos: Sequence[Photo]) -> list[dict[str, Any]]:
    rows = []
    for number, photo in enumerate(photos, 1):
        for box, label, crowd, area in zip(
            photo.box, photo.label, photo.crowd, photo.area, strict=True
        ):
            about = {"area": float(area), "iscrowd": int(crowd), "ignore": 0}
            rows.append(_row(len(rows), number, box, label) | about)
    return rows


def _said(found: np.ndarray, photos: Sequence[Photo], side: int) -> list[dict[str, Any]]:
    rows = []
    for number, (one, photo) in enumerate(zip(found, photos, strict=True), 1):
        for detection in to_photo(one, photo, side):
            row = _row(len(rows), number, detection[:4], detection[5])
            area = row["bbox"][2] * row["bbox"][3]
            rows.append(row | {"score": float(detection[4]), "area": area, "iscrowd": 0})
    return rows


def _row(rows: int, number: int, box: np.ndarray, label: Any) -> dict[str, Any]:
    left, top, right, bottom = (float(x) for x in box)
    return {
        "id": rows + 1,  # COCO takes 0 for no match
        "image_id": number,
        "category_id": int(label),
        "bbox": [left, top, right - left, bottom - top],
    }


def _reliability(
    judged: Sequence[Mapping[str, Any] | None], pictures: int, num_bins: int
) -> dict[str, np.ndarray]:
    """Bins of all detections at IoU .5, objects of all sizes."""
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    ranges = 4  # of areas, the first being all; the list runs over classes, ranges, pictures
    for place, one in enumerate(judged):
        if one is None or place // pictures % ranges != 0:
            continue
        counts = ~np.asarray(one["dtIgnore"][0], bool)
        scores.append(np.asarray(one["dtScores"], float)[counts])
        right.append(np.asarray(one["dtMatches"][0])[counts] > 0)
    score, hit = np.concatenate(scores), np.concatenate(right)
    at = np.clip(np.ceil(score * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(at, minlength=num_bins).astype(float)
    some = np.maximum(count, 1)
    return {
        "count": count,
        "accuracy": np.bincount(at, hit, num_bins) / some,
        "confidence": np.bincount(at, score, num_bins) / some,
    }
