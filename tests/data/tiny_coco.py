"""A folder in COCO's layout: bright rectangles on grey, two classes with different colours."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = ((230, 40, 40), (40, 60, 230))
SIZES = {"train": 8, "val": 3}


def write(root: Path, sizes=None, change=None) -> Path:
    """Write images and annotations below `root`; `change(split, instances)` may damage the json."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in (sizes or SIZES).items():
        (root / split).mkdir(exist_ok=True)
        rng = np.random.default_rng(count)
        images, notes = [], []
        for number in range(1, count + 1):
            height, width = (48, 64) if number % 2 else (64, 40)
            picture = np.full((height, width, 3), 120, np.uint8)
            for _ in range(number % 3):  # none, one or two
                kind = int(rng.integers(2))
                left, top = (int(rng.integers(0, n - 24)) for n in (width, height))
                wide, tall = (int(n) for n in rng.integers(12, 24, 2))
                picture[top : top + tall, left : left + wide] = COLORS[kind]
                notes.append(
                    {
                        "id": len(notes) + 1,
                        "image_id": number,
                        "category_id": (3, 7)[kind],
                        "bbox": [left, top, wide, tall],
                        "area": wide * tall,
                        "iscrowd": 0,
                    }
                )
            name = f"{number:03d}.png"
            Image.fromarray(picture).save(root / split / name)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
        instances = {"images": images, "annotations": notes, "categories": categories}
        if change is not None:
            change(split, instances)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    return root
