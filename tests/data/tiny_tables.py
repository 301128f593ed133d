"""Small tables and .tar shards, written as the libraries `datasets` and `webdataset` write them."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
from PIL import Image

NAMES = ("ant", "bee", "cat")


def picture(value: int, size=(6, 5)) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(content, "PNG")
    return content.getvalue()


def arrow_table(count: int, names=NAMES, **changes) -> pa.Table:
    image = [{"bytes": picture(row), "path": None} for row in range(count)]
    columns = {"image": image, "label": [row % 3 for row in range(count)], **changes}
    features = {"label": {"names": list(names or ()), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(metadata if names else None)


def write_arrow(file, table: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def save_to_disk(root, train=20, test=6, **changes) -> str:
    """Write the layout of `DatasetDict.save_to_disk`."""
    for split, count in (("train", train), ("test", test)):
        write_arrow(root / split / "data-00000-of-00001.arrow", arrow_table(count, **changes))
        (root / split / "state.json").write_text("{}")
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return str(root)


def write_shard(file, samples) -> None:
    """Write a shard of samples: (key, {suffix: content})."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as shard:
        for key, members in samples:
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def samples(count, start=0, label=lambda row: {"cls": str(row % 3).encode()}):
    rows = range(start, start + count)
    return [(f"{row:04d}", {"png": picture(row), **label(row)}) for row in rows]
