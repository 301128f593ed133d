"""What the detection experiments share: the terms of a detector that learns, and those of KD++."""


def learning(box_weight: float = 1.0) -> dict:
    """Two-stage training: the proposal network's two losses and the box head's two."""
    return {
        "ce": {"weight": 1.0},
        "box_smooth_l1": {"weight": box_weight},
        "binary_cross_entropy": {"weight": 1.0},
        "anchor_smooth_l1": {"weight": box_weight},
    }


def following(kd: float, nd: float) -> dict:
    """What is added toward a frozen teacher that judges the student's regions; 0 leaves out."""
    found = {}
    if kd:
        found["forward_kl"] = {"toward": "teacher", "weight": kd, "temperature": 1.0}
    if nd:
        found["norm_direction"] = {"toward": "teacher", "weight": nd}
    return found


def tiny(width: int, **options) -> dict:
    """A detector for tests: a step in a moment."""
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
