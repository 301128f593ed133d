"""Shared parts of the detection experiments: terms of a trained detector, and those of KD++."""


def training_terms(box_weight: float = 1.0) -> dict:
    """Return the terms of two-stage training: two of the proposal network, two of the box head."""
    return {
        "ce": {"weight": 1.0},
        "box_smooth_l1": {"weight": box_weight},
        "binary_cross_entropy": {"weight": 1.0},
        "anchor_smooth_l1": {"weight": box_weight},
    }


def distillation_terms(kd: float, nd: float) -> dict:
    """Return KD and ND toward a frozen teacher that is evaluated on the student's regions."""
    terms = {}
    if kd:
        terms["forward_kl"] = {"toward": "teacher", "weight": kd, "temperature": 1.0}
    if nd:
        terms["norm_direction"] = {"toward": "teacher", "weight": nd}
    return terms


def tiny(width: int, **options) -> dict:
    """Return a detector small enough for tests."""
    return {
        "name": "faster_rcnn",
        "backbone": "ResNet10",
        "backbone_options": {"width": width},
        "pyramid_width": 4,
        "box_width": 8,
        "anchor_sizes": (8, 16, 32, 64, 128),
        "canonical": 56.0,
        "limits": {
            "before": 20,
            "proposals": 10,
            "anchors": 8,
            "regions": 8,
            "detections": 4,
            "candidates": 20,
        },
        **options,
    }
