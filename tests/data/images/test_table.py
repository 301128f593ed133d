"""Images in tables of `datasets`: .arrow, .parquet and .jsonl files, and names of the hub."""

import json
import sys
import types

import numpy as np
import pyarrow.parquet as pq
import pytest

from kdjax import data
from kdjax.errors import UserError
from tests.data import fakes, tiny_tables


def load(path, **keys):
    return fakes.load("hf", path=str(path), batch_size=4, **keys)


def test_a_folder_of_save_to_disk(tmp_path):
    source = load(tiny_tables.save_to_disk(tmp_path), validation=2)
    assert source.size == {"train": 18, "validation": 2, "test": 6}
    assert source.spec.class_names == tiny_tables.NAMES
    assert source.spec.shape == (6, 5, 3)
    batch = next(source.evals["test"]())
    np.testing.assert_array_equal(batch["image"][:6, 0, 0, 0], range(6))
    np.testing.assert_array_equal(batch["label"][:6], [0, 1, 2, 0, 1, 2])


def test_streamed_batches_are_those_in_memory_and_start_at_any_step(tmp_path):
    tiny_tables.save_to_disk(tmp_path)
    memory, streamed = (load(tmp_path, validation=2, on_device=on) for on in (True, False))
    batches = streamed.train(0, 3)
    following = [next(batches) for _ in range(6)]
    batches.close()
    for step in (0, 5):
        ids = next(memory.train(step, 3))["id"]
        np.testing.assert_array_equal(following[step]["image"], memory.arrays["image"][ids])
        restarted = streamed.train(step, 3)
        np.testing.assert_array_equal(next(restarted)["id"], ids)
        restarted.close()


def test_parquet_and_jsonl_hold_the_same(tmp_path):
    for folder in ("parquet", "jsonl", "png"):
        (tmp_path / folder).mkdir()
    for split, count in (("train", 20), ("validation", 4), ("test", 6)):
        table = tiny_tables.arrow_table(count)
        pq.write_table(table, tmp_path / "parquet" / f"{split}-00000-of-00001.parquet")
        rows = []
        for row in range(count):
            (tmp_path / "png" / f"{row}.png").write_bytes(tiny_tables.picture(row))
            rows.append({"img": f"../png/{row}.png", "label": tiny_tables.NAMES[row % 3]})
        (tmp_path / "jsonl" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet, jsonl = (load(tmp_path / folder) for folder in ("parquet", "jsonl"))
    assert parquet.size == {"train": 20, "validation": 4, "test": 6}
    assert parquet.digest == jsonl.digest
    assert parquet.spec == jsonl.spec


def test_pixels_as_nested_lists(tmp_path):
    pixels = [np.full((6, 5), row).tolist() for row in range(20)]
    tiny_tables.save_to_disk(tmp_path, test=20, image=pixels)
    assert load(tmp_path).spec.shape == (6, 5, 1)
    tiny_tables.save_to_disk(tmp_path, test=20, image=[[300]] * 20)
    with pytest.raises(UserError, match=r"row 0 of image is no image; .* 0 to 255"):
        load(tmp_path)
    tiny_tables.save_to_disk(tmp_path, test=20, image=[np.zeros((3, 6, 5), int).tolist()] * 20)
    with pytest.raises(UserError, match=r"\[height, width, channel\] .* with 1, 3 or 4 channels"):
        load(tmp_path)


def test_numbers_without_names_are_classes(tmp_path):
    tiny_tables.save_to_disk(tmp_path, names=None)
    assert load(tmp_path).spec.class_names == ("0", "1", "2")


def test_a_test_split_without_labels_is_left_out(tmp_path):
    tiny_tables.save_to_disk(tmp_path)
    hidden = tiny_tables.arrow_table(5, label=[-1] * 5)
    tiny_tables.write_arrow(tmp_path / "validation" / "0.arrow", tiny_tables.arrow_table(9))
    tiny_tables.write_arrow(tmp_path / "test" / "data-00000-of-00001.arrow", hidden)
    with pytest.warns(UserWarning, match="labels of test are all -1"):
        source = load(tmp_path, validation=2)
    assert source.size == {"train": 18, "validation": 2, "test": 9}


def test_unreadable_pictures(tmp_path):
    image = [{"bytes": b"no picture" if row == 4 else tiny_tables.picture(row)} for row in range(9)]
    path = tiny_tables.save_to_disk(tmp_path, 9, 9, image=image)
    with pytest.raises(UserError, match="row 4 of image is not a readable picture"):
        load(path)
    with pytest.warns(UserWarning, match="1 unreadable pictures were skipped: .*row 4"):
        assert load(path, validation=2, unreadable="skip").size["test"] == 8
    with pytest.raises(UserError, match="row 4 of image is not a readable"):
        load(path, on_device=False).verify()


@pytest.mark.parametrize(
    ("change", "columns", "match"),
    [
        ({}, {"label": "lbl"}, "data.columns.label is 'lbl', .* has the columns image, label"),
        ({"label": ["x"] * 6}, {}, "test has the class 'x', but the classes are ant, bee, cat"),
        ({"label": [3] * 6}, {}, "test has the class 3"),
        ({"label": [0.5] * 6}, {}, "the label of row 0 is '0.5'"),
        ({"names": ("ant", "cat", "bee")}, {}, "classes of test are ant, cat, bee but those of tr"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, change, columns, match):
    tiny_tables.save_to_disk(tmp_path)
    wrong = tiny_tables.arrow_table(6, **change)
    tiny_tables.write_arrow(tmp_path / "test" / "data-00000-of-00001.arrow", wrong)
    with pytest.raises(UserError, match=match):
        load(tmp_path, columns=data.Columns(**columns))


def test_a_missing_column_names_those_that_exist(tmp_path):
    tiny_tables.save_to_disk(tmp_path)
    for split in ("train", "test"):
        table = tiny_tables.arrow_table(20).rename_columns(["image", "kind"])
        tiny_tables.write_arrow(tmp_path / split / "data-00000-of-00001.arrow", table)
    with pytest.raises(UserError, match=r"no column of labels .* one of image, kind"):
        load(tmp_path)
    assert load(tmp_path, columns=data.Columns(label="kind")).spec.num_classes == 3


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; give a folder of save_to_disk"):
        load(tmp_path / "no")
    with pytest.raises(UserError, match=r"holds no \.parquet"):
        load(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        load(tmp_path)
    (tmp_path / "test.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"holds \.csv and \.parquet files; give one format"):
        load(tmp_path)


def test_a_name_of_the_hub(tmp_path, monkeypatch):
    path = tiny_tables.save_to_disk(tmp_path)

    def load_dataset(name, subset):
        if name != "owner/ants":
            raise FileNotFoundError("no such set\non the hub")
        assert subset == "small"
        files = {s: [{"filename": f"{path}/{s}/data-00000-of-00001.arrow"}] for s in SPLITS}
        return {split: types.SimpleNamespace(cache_files=each) for split, each in files.items()}

    SPLITS = ("train", "test")
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert load("owner/ants:small", validation=2).size == {"train": 18, "validation": 2, "test": 6}
    with pytest.raises(UserError, match=r"data.path=owner/bees .* refuses it: no such set on the"):
        load("owner/bees")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'kdjax\[hf\]'"):
        load("owner/cats")
