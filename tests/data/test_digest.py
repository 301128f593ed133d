"""Digests of data: the same for the same content, another one for any other."""

import hashlib

import numpy as np

from kdjax.data.digest import digest
from tests.data import fakes, tiny_coco, tiny_text

from kdjax import data  # isort: skip

ARRAY = np.arange(6, dtype=np.int32).reshape(2, 3)


def test_is_the_content_and_its_size():
    (text,) = digest({"a": ARRAY}).values()
    assert text == f"int32 [2, 3] {hashlib.sha256(ARRAY.tobytes()).hexdigest()[:16]}"
    assert digest({"a": ARRAY[:, ::-1][:, ::-1]}) == digest({"a": ARRAY})
    others = (ARRAY.T, ARRAY.astype(np.int64), ARRAY.reshape(3, 2), ARRAY[:0], ARRAY + 1)
    assert len({digest({"a": other})["a"] for other in (ARRAY, *others)}) == 6
    names = (["a", "b"], ["ab"], ["b", "a"], [], ["a\udcff"])
    assert len({digest({"a": name})["a"] for name in names}) == len(names)


def changed(load, change):
    """Return the parts of a digest that a change makes another, and that reading twice does not."""
    before = load().digest
    assert before == load().digest
    change()
    after = load().digest
    return {part for part in before.keys() | after.keys() if before.get(part) != after.get(part)}


def test_npz(tmp_path):
    path = fakes.write_npz(tmp_path / "a.npz")
    label = fakes.arrays()["y_test"]

    def load(**keys):
        return fakes.load("npz", path=path, batch_size=4, **keys)

    for off in (True, False):
        relabelled = np.roll(label, 1 + off)
        parts = changed(
            lambda off=off: load(on_device=off),
            lambda y=relabelled: fakes.write_npz(path, y_test=y),
        )
        assert parts == {"test labels"}


def test_streamed_folder(tmp_path):
    for split in ("train", "test"):
        fakes.write_pictures(tmp_path / split)

    def load():
        return fakes.load("folder", path=str(tmp_path), batch_size=4, on_device=False)

    file = tmp_path / "test" / "ant" / "0.png"
    assert changed(load, lambda: file.write_bytes(file.read_bytes() + b" ")) == {"test pictures"}
    assert changed(load, lambda: file.rename(file.with_name("7.png"))) == {"test pictures"}
    moved = tmp_path / "train" / "bee" / "9.png"
    assert changed(load, lambda: file.with_name("7.png").rename(moved)) == {
        "test pictures",
        "train pictures",
    }


def test_coco(tmp_path):
    def load(where):
        options = {"path": str(tmp_path), "batch_size": 2, "image_size": 64, "on_device": where}
        return data.read_detection(*fakes.options(data.DetectionOptions, **options)).source

    def annotate(kind):
        def change(split, table):
            if split == "val":
                table["annotations"][0]["category_id"] = kind

        tiny_coco.write(tmp_path, change=change)

    annotate(3)
    assert changed(lambda: load(False), lambda: annotate(7)) == {"test label"}
    picture = tmp_path / "train" / "001.png"
    repainted = fakes.Image.new("RGB", (64, 48))
    parts = changed(lambda: load(True), lambda: repainted.save(picture))
    assert parts <= {"train pictures", "train images", "validation images"}
    assert len(parts) == 2


def test_text(tmp_path):
    tiny_text.write(tmp_path, "glue/sst2")

    def load():
        options = {"task": "glue/sst2", "path": str(tmp_path), "batch_size": 4, "max_length": 16}
        options |= {"vocabulary_size": 60}
        return data.read_text(*fakes.options(data.TextOptions, **options)).source

    file = tmp_path / "SST-2" / "dev.tsv"

    def relabel():
        lines = file.read_text().splitlines()
        lines[1] = lines[1][:-1] + str(1 - int(lines[1][-1]))
        file.write_text("\n".join(lines) + "\n")

    assert changed(load, relabel) == {"test labels"}


def test_pairs():
    digests = []
    for seed in (0, 0, 1):
        options = fakes.options(data.PairOptions, batch_size=4, split_seed=seed)
        digests.append(data.load_pairs("pairs_synthetic", *options).digest)
    assert digests[0] == digests[1] != digests[2]
