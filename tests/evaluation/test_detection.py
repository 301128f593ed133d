"""Average precision and detection ECE of cases computed by hand."""

import numpy as np
import pytest

from kdjax.data.detection.coco import Photo
from kdjax.evaluation.detection import detection_metrics, to_photo

pytest.importorskip("pycocotools", reason='needs the extra: pip install "kdjax[detection]"')


def photo(boxes, labels, crowd=None, size=(100, 200)):
    box = np.array(boxes, np.float32).reshape(-1, 4)
    return Photo(
        "a.png",
        size,
        box,
        np.array(labels, np.int32),
        np.array(crowd or [False] * len(box), bool),
        np.prod(box[:, 2:] - box[:, :2], axis=1),
    )


def packed(rows, count=4):
    """Return detections (box, score, class) in pixels of an input of 100, half of the image's."""
    packed_rows = np.zeros((count, 7), np.float32)
    for n, (box, score, label) in enumerate(rows):
        packed_rows[n] = [*(np.array(box) / 2), score, label, 1]
    return packed_rows


PHOTOS = [photo([[10, 10, 50, 50], [60, 10, 100, 90]], [0, 1]), photo([[0, 0, 20, 20]], [0])]


def judge(*pictures, photos=PHOTOS):
    return detection_metrics(np.stack(pictures), photos, classes=2, side=100, num_bins=10)


def test_perfect_detections_have_ap_one_and_ece_from_scores():
    first = packed([([10, 10, 50, 50], 0.75, 0), ([60, 10, 100, 90], 0.75, 1)])
    values, bins = judge(first, packed([([0, 0, 20, 20], 0.75, 0)]))
    for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium"):
        assert values[name] == pytest.approx(1.0), name
    assert np.isnan(values["ap_large"])  # no such object
    assert values["detection_ece"] == pytest.approx(0.25)
    assert bins["count"].tolist() == [0] * 7 + [3, 0, 0]


def test_nothing_found_has_precision_zero_and_no_calibration_error():
    values, bins = judge(packed([]), packed([]))
    assert values["ap"] == values["ap50"] == 0
    assert np.isnan(values["detection_ece"])
    assert bins["count"].sum() == 0


def test_half_of_the_objects_detected():
    """Class 0: one right (.9), one wrong (.75), one missed; class 1: no detections.

    Precision is 1 up to recall 1/2, then 0: 51 of COCO's 101 recall points, and half the classes.
    """
    first = packed([([10, 10, 50, 50], 0.9, 0), ([60, 10, 100, 90], 0.75, 0)])
    values, bins = judge(first, packed([]))
    assert values["ap50"] == pytest.approx(51 / 101 / 2)
    # bins (.8, .9] and (.7, .8]: |1 - .9| and |0 - .75|
    assert values["detection_ece"] == pytest.approx((0.1 + 0.75) / 2, abs=1e-6)
    assert bins["accuracy"][8] == 1
    assert bins["accuracy"][7] == 0


def test_an_overlap_between_the_thresholds():
    """IoU 40 x 40 / (40 x 50) = .8: right at .5 and .75, wrong from .85 on; .8 by rounding."""
    truth = [photo([[10, 10, 50, 60]], [0])]
    values, _ = judge(packed([([10, 10, 50, 50], 0.9, 0)]), photos=truth)
    assert values["ap50"] == values["ap75"] == pytest.approx(1.0)
    assert values["ap"] == pytest.approx(0.7, abs=0.001) or values["ap"] == pytest.approx(0.6)


def test_detections_in_a_crowd_are_ignored():
    truth = [photo([[0, 0, 100, 100], [120, 10, 160, 50]], [0, 0], crowd=[True, False])]
    detections = packed([([10, 10, 30, 30], 0.9, 0), ([120, 10, 160, 50], 0.5, 0)])
    values, bins = judge(detections, photos=truth)
    assert values["ap50"] == pytest.approx(1.0)
    assert bins["count"].sum() == 1


def test_boxes_are_converted_to_image_pixels():
    detections = to_photo(packed([([10, 10, 50, 50], 0.9, 1)]), PHOTOS[0].size, 100)
    np.testing.assert_allclose(detections, [[10, 10, 50, 50, 0.9, 1]], rtol=1e-6)
    with pytest.raises(ValueError, match="1 pictures, but 2 photos"):
        judge(packed([]))
