"""Which photographs a report shows, and what each detector says of them."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from kdjax.evaluation.detection import to_photo
from kdjax.evaluation.task import EvalSpec

SPLITS = {"test": 4, "test_train": 2}  # how many photographs of each
_LEAST, _MOST = 0.3, 12  # confidence of a box that is drawn, and how many of a photograph


def shown(evaluation: EvalSpec, split: str, packed: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is kept for drawings: role -> photograph -> [left, top, right, bottom, score, class].

    Args:
      evaluation: for its pictures.
      split: any; those that are not shown give {}.
      packed: detections by role, [members, pictures, detections x 7]; the first member is shown.
    """
    if evaluation.pictures is None or split not in SPLITS:
        return {}
    photos = evaluation.pictures.photos[split][: SPLITS[split]]
    side = evaluation.spec.shape[0]
    found = {}
    for role, members in packed.items():
        rows = np.asarray(members[0]).reshape(len(members[0]), -1, 7)
        each = [to_photo(rows[n], photo, side) for n, photo in enumerate(photos)]
        found[role] = [one[one[:, 4] >= _LEAST][:_MOST].tolist() for one in each]
    return found


def drawings(
    evaluation: EvalSpec, detections: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the photographs as `report.pictures` shows them; [] without boxes.

    Args:
      evaluation: for its pictures.
      detections: title of a panel -> split -> photograph -> boxes as `shown` returns them.
    """
    if evaluation.pictures is None:
        return []
    names, found = evaluation.spec.class_names, []
    for split in SPLITS:
        for number, photo in enumerate(evaluation.pictures.photos.get(split, ())[: SPLITS[split]]):
            true = [[*b, None, n] for b, n in zip(photo.box.tolist(), photo.label, strict=True)]
            panels = [{"title": "truth", "boxes": [_box(row, names) for row in true]}]
            for title, splits in detections.items():
                if split in splits:
                    boxes = [_box(row, names) for row in splits[split][number]]
                    panels.append({"title": title, "boxes": boxes})
            height, width = photo.size
            title = f"{split}: {photo.file.rsplit('/', 1)[-1]}"
            jpeg = _jpeg(evaluation.pictures.open(photo))
            found.append(
                {"title": title, "width": width, "height": height, "jpeg": jpeg, "panels": panels}
            )
    return found


def _box(row: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    *box, score, number = row
    return {"box": box, "score": score, "class": int(number), "name": names[int(number)]}


def _jpeg(image: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()
