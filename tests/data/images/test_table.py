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
        (
            {"label": [3] * 6},
            {},
            "test has the label 3; labels number the 3 named classes from 0 to 2",
        ),
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


def test_paths_are_relative_to_the_file_of_their_row(tmp_path):
    for number, folder in enumerate(("a", "b")):
        place = tmp_path / "train" / folder
        place.mkdir(parents=True)
        for row in range(6):
            (place / f"{row}.png").write_bytes(tiny_tables.picture(100 * number + row))
        lines = [f"{row}.png,{'ant' if row % 2 else 'bee'}" for row in range(6)]
        (place / "meta.csv").write_text("\n".join(["image,label", *lines]))
    pixels = load(tmp_path, validation=2, test=2).arrays["image"][:, 0, 0, 0]
    assert {*pixels.tolist()} <= {*range(6), *range(100, 106)}
    assert 0 < np.sum(pixels >= 100) < 8
    assert len(set(pixels.tolist())) == len(pixels) == 8
    (tmp_path / "train" / "b" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b/meta.csv: row 3 of image is not a readable picture"):
        load(tmp_path)


def test_files_that_number_classes_otherwise_are_refused(tmp_path):
    tiny_tables.save_to_disk(tmp_path)
    other = tiny_tables.arrow_table(5, names=tiny_tables.NAMES[::-1])
    tiny_tables.write_arrow(tmp_path / "train" / "data-1.arrow", other)
    with pytest.raises(UserError, match="name other classes, or the same in another order"):
        load(tmp_path)


def test_a_class_without_readable_pictures_is_refused(tmp_path):
    image = [{"bytes": tiny_tables.picture(row) if row % 3 else b""} for row in range(9)]
    path = tiny_tables.save_to_disk(tmp_path, 9, 9, image=image)
    with (
        pytest.warns(UserWarning, match="3 unreadable pictures were skipped"),
        pytest.raises(UserError, match="no picture of ant in train is readable"),
    ):
        load(path, unreadable="skip")


def test_the_first_picture_of_a_class_may_be_unreadable(tmp_path):
    image = [{"bytes": tiny_tables.picture(row) if row else b""} for row in range(20)]
    path = tiny_tables.save_to_disk(tmp_path, 20, 20, image=image)
    with pytest.warns(UserWarning, match="1 unreadable pictures were skipped"):
        assert load(path, validation=2, unreadable="skip").size["train"] == 17


def test_shards_are_counted(tmp_path):
    for number in (0, 1, 3):
        name = f"train-{number:05d}-of-00004.parquet"
        pq.write_table(tiny_tables.arrow_table(6), tmp_path / name)
    with pytest.warns(UserWarning, match="train has 3 of 4 shards"):
        assert load(tmp_path, validation=2, test=2).size["train"] == 14
    pq.write_table(tiny_tables.arrow_table(6), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="train is divided into 1 and 4 shards"):
        load(tmp_path)


def test_a_file_of_two_splits_is_refused(tmp_path):
    (tmp_path / "training").mkdir()
    for split in ("train", "test"):
        (tmp_path / "training" / f"{split}.csv").write_text("image,label\na.png,0\n")
    with pytest.raises(UserError, match=r"training/test.csv: .* both train and test; rename it"):
        load(tmp_path)
