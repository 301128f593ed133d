"""Images with boxes: reading, errors, counts, order, and augmentation in the step."""

import json
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdjax import data
from kdjax.data.detection.coco import open_photo, read_coco
from kdjax.errors import UserError
from tests.data import fakes, tiny_coco

OPTIONS = {"batch_size": 2, "eval_batch_size": 2, "image_size": 64, "max_boxes": 4, "validation": 2}


def options(path, **changed):
    return fakes.options(data.DetectionOptions, **{**OPTIONS, "path": str(path), **changed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_coco.write(tmp_path_factory.mktemp("coco"))


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_folder(folder):
    dataset = data.read_detection(*options(folder))
    spec = dataset.source.spec
    assert spec.class_names == ("red", "blue", "background")
    assert (spec.shape, spec.num_classes, spec.task) == ((64, 64, 3), 3, "detection")
    assert dataset.source.size == {"train": 6, "validation": 2, "test": 3}
    assert {split: len(rows) for split, rows in dataset.photos.items()} == dataset.source.size
    batch = next(dataset.source.evals["test"]())
    for name, (shape, dtype) in spec.inputs.items():
        assert batch[name].shape == (2, *shape)
        assert batch[name].dtype == dtype
    # the first image of the val split is 48 x 64 with one box, the second 64 x 40 with two
    assert batch["size"].tolist() == [[48, 64], [64, 40]]
    assert batch["label"].tolist() == [1, 2]
    assert batch["box_mask"].sum(1).tolist() == [1, 2]


def test_boxes_match_their_objects(folder):
    """After resizing, the inside of a box has its colour and the padding is black."""
    dataset = data.read_detection(*options(folder, image_size=96))
    for batch in dataset.source.evals["train"]():
        for row in range(2):
            height, width = (int(x) for x in batch["size"][row])
            assert max(height, width) == 96
            assert not batch["image"][row, height:].any()
            assert not batch["image"][row, :, width:].any()
            for box, label in zip(batch["box"][row], batch["box_label"][row], strict=True):
                if box[2] == 0 or batch["box_mask"][row].sum() > 1:
                    continue  # two rectangles may overlap
                x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
                np.testing.assert_allclose(
                    batch["image"][row, y, x], tiny_coco.COLORS[label], atol=2
                )


def test_a_zip_equals_the_folder(folder, tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            out.write(file, f"top/{file.relative_to(folder)}")
    a, b = (data.read_detection(*options(path)).source for path in (folder, archive))
    for split in a.evals:
        for one, other in zip(a.evals[split](), b.evals[split](), strict=True):
            same(one, other)


def test_folders_of_pictures_may_be_links(folder, tmp_path):
    plain = read_coco(str(folder))
    for name in ("annotations", "train", "val"):
        (tmp_path / name).symlink_to(folder / name)
    assert [p.file for p in read_coco(str(tmp_path)).val] == [p.file for p in plain.val]


def test_the_order_depends_on_seed_and_step_alone(folder):
    small, streamed = (
        data.read_detection(*options(folder, on_device=where)).source for where in (True, False)
    )
    first = small.train(0, 3)
    ids = [next(first)["id"] for _ in range(7)]
    later = small.train(5, 3)
    np.testing.assert_array_equal(next(later)["id"], ids[5])
    assert sorted(np.concatenate(ids[:3]).tolist()) == list(range(6))
    stream = streamed.train(0, 3)
    for number in range(2):
        batch = next(stream)
        np.testing.assert_array_equal(batch["id"], ids[number])
        looked_up = data.lookup(small.arrays, {"id": ids[number]})
        same(
            {n: np.asarray(looked_up[n]) for n in small.arrays}, {n: batch[n] for n in small.arrays}
        )
    stream.close()


def test_every_image_is_evaluated_once(folder):
    source = data.read_detection(*options(folder, judge_train=True)).source
    for split, size in source.size.items():
        batches = list(source.evals[split]())
        real = np.concatenate([batch["mask"] for batch in batches]) > 0
        ids = np.concatenate([batch["id"] for batch in batches])[real]
        assert ids.tolist() == list(range(size))
    assert source.size["test_train"] == source.size["train"]


def test_the_step_mirrors_normalises_and_samples(folder):
    dataset = data.read_detection(*options(folder))
    spec = dataset.source.spec
    batch = next(dataset.source.evals["test"]())
    prepare = data.prepare(spec, augment="flip")
    plain = prepare(batch)
    np.testing.assert_array_equal(plain["box"], batch["box"])
    for row, (height, width) in enumerate(batch["size"].astype(int)):
        pixels = batch["image"][row, :height, :width] / 255.0
        expected = (pixels - np.array(spec.mean)) / np.array(spec.std)
        np.testing.assert_allclose(plain["image"][row, :height, :width], expected, atol=1e-5)
        assert not np.any(plain["image"][row, height:])
    seen = set()
    for seed in range(8):
        turned = prepare(batch, jax.random.key(seed))
        for row, (height, width) in enumerate(batch["size"].astype(int)):
            image = np.asarray(turned["image"][row, :height, :width])
            original = np.asarray(plain["image"][row, :height, :width])
            mirrored = not np.array_equal(image, original)
            seen.add(mirrored)
            np.testing.assert_array_equal(image, original[:, ::-1] if mirrored else original)
            box, old = np.asarray(turned["box"][row]), batch["box"][row]
            if mirrored:
                old = np.stack([width - old[:, 2], old[:, 1], width - old[:, 0], old[:, 3]], 1)
            real = batch["box_mask"][row] > 0
            np.testing.assert_allclose(box[real], old[real])
    assert seen == {True, False}
    # an image's random draws do not depend on its batch
    half = {name: value[1:] for name, value in batch.items()}
    key = jax.random.key(5)
    assert prepare(half, key)["draw"][0] == prepare(batch, key)["draw"][1]
    with pytest.raises(UserError, match="choose none or flip"):
        data.prepare(spec, augment="crop")


def test_flip_alone_works_for_classifiers():
    spec = fakes.load("digits", batch_size=4).spec
    batch = {"image": jnp.arange(128.0).reshape(2, 8, 8, 1), "label": jnp.zeros(2, int)}
    prepare = data.prepare(spec, augment="flip")
    plain = np.asarray(prepare(batch)["image"])
    for seed in range(3):
        for image, original in zip(
            prepare(batch, jax.random.key(seed))["image"], plain, strict=True
        ):
            unchanged = np.array_equal(image, original)
            turned = np.array_equal(image, original[:, ::-1])
            assert unchanged or turned


def spoil(split, tables, *, note=None, image=None, category=None, drop=None, of="train"):
    """Change the first annotation, picture or category of a split, or drop a table."""
    if split == of:
        changes = {"annotations": note, "images": image, "categories": category}
        for name, change in changes.items():
            tables[name][0].update(change or {})
            tables[name][0] = {k: v for k, v in tables[name][0].items() if v != "gone"}
        if drop:
            del tables[drop]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"note": {"category_id": 99}}, "category 99"),
        ({"note": {"image_id": 99}}, "image 99, which"),
        ({"image": {"file_name": "none.png"}}, "pictures are missing, the first is train/none.png"),
        ({"image": {"id": 2}}, "image id 2 is listed twice"),
        ({"image": {"height": "gone"}}, "train: image 1: not COCO's json: no 'height'"),
        ({"image": {"height": 0}}, "train: image id 1 is 64x0"),
        ({"note": {"id": 2}}, "annotation id 2 is listed twice"),
        ({"note": {"id": "gone"}}, "annotation without id: not COCO's json"),
        ({"note": {"bbox": [1, 2]}}, "annotation 1: not COCO's json"),
        ({"note": {"bbox": None}}, "annotation 1: not COCO's json"),
        ({"note": {"bbox": "gone"}}, "annotation 1: not COCO's json: no 'bbox'"),
        ({"category": {"name": "gone"}}, "category id 3 has no name"),
        ({"category": {"name": "blue"}}, "category id 7 blue is listed twice"),
        ({"category": {"id": 7}}, "category id 7 blue is listed twice"),
        ({"category": {"id": None}}, "category None: not COCO's json"),
        ({"drop": "categories"}, "lacks categories"),
        (
            {"of": "val", "category": {"name": "green"}},
            r"val: annotation id . has category 3 \('gre",
        ),
    ],
)
def test_invalid_annotations_are_errors(tmp_path, change, message):
    path = tiny_coco.write(tmp_path, change=lambda split, table: spoil(split, table, **change))
    with pytest.raises(UserError, match=message) as caught:
        read_coco(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "5", "[" * 100_000, '{"images": [5]}', "{", ""])
def test_annotations_that_are_no_table_are_refused(tmp_path, text):
    path = tiny_coco.write(tmp_path)
    (path / "annotations" / "instances_val.json").write_text(text)
    with pytest.raises(UserError, match=r"instances_val\.json") as caught:
        read_coco(str(path))
    assert len(str(caught.value)) < 400


def test_boxes_as_fractions_are_refused(tmp_path):
    def change(split, said):
        for note in said["annotations"]:
            note["bbox"] = [x / 64 for x in note["bbox"]]

    path = tiny_coco.write(tmp_path, change=change)
    with pytest.raises(UserError, match=r"annotation id 1 has a box in 0 to 1.*in pixels"):
        read_coco(str(path))


def test_categories_of_val_are_matched_by_name(folder, tmp_path):
    """Other ids, another order, one without annotations: the labels stay."""

    def change(split, said):
        if split == "val":
            said["categories"] = [
                {"id": n, "name": c} for n, c in ((3, "blue"), (5, "red"), (9, "x"))
            ]
            for note in said["annotations"]:
                note["category_id"] = {3: 5, 7: 3}[note["category_id"]]

    plain, changed = (read_coco(str(p)) for p in (folder, tiny_coco.write(tmp_path, change=change)))
    assert plain.class_names == changed.class_names == ("red", "blue")
    for a, b in zip(plain.val, changed.val, strict=True):
        assert a.label.tolist() == b.label.tolist()


@pytest.mark.parametrize("frame", ["shown", "stored"])
def test_boxes_of_a_rotated_picture(tmp_path, frame):
    """The 64 x 40 picture number 2 is stored lying; its boxes are in the frame of its size."""
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    path = tiny_coco.write(tmp_path)
    plain = read_coco(str(path)).train[1]
    upright = open_photo(str(path), plain)
    stored = np.rot90(upright) if frame == "shown" else upright
    Image.fromarray(stored).save(path / plain.file, exif=exif)
    np.testing.assert_array_equal(open_photo(str(path), plain), upright)


def test_boxes_outside_or_without_area_are_counted(tmp_path):
    def change(split, instances):
        if split == "train":
            first = instances["annotations"][0]
            boxes = ([-10, -10, 30, 30], [1000, 5, 10, 10], [5, 5, 0, 10], [5, 5, -3, 10])
            more = [{**first, "id": 100 + n, "bbox": list(b)} for n, b in enumerate(boxes)]
            instances["annotations"] += more

    path = tiny_coco.write(tmp_path, change=change)
    with pytest.warns(UserWarning, match="boxes") as caught:
        dataset = read_coco(str(path))
    message = str(caught[0].message)
    for part in (
        "1 boxes outside of their picture were dropped",
        "1 boxes were cut at the edge of their picture",
        "2 boxes without area were dropped",
    ):
        assert part in message
    for photo in dataset.train:
        height, width = photo.size
        assert (photo.box >= 0).all()
        assert (photo.box <= [width, height, width, height]).all()


def test_boxes_beyond_the_padding_are_counted_and_the_largest_stay(folder):
    with pytest.warns(UserWarning, match="more than data.max_boxes = 1"):
        dataset = data.read_detection(*options(folder, max_boxes=1))
    batch = next(dataset.source.evals["test"]())
    assert batch["box"].shape == (2, 1, 4)
    photo = dataset.photos["test"][1]
    largest = photo.box[np.argmax(photo.area)]
    np.testing.assert_allclose(batch["box"][1, 0], largest)  # this image is already 64 high


def test_an_area_of_zero_is_that_of_the_box(tmp_path):
    path = tiny_coco.write(tmp_path)
    expected = data.read_detection(*options(path)).photos["test"]
    for file in (path / "annotations").glob("*.json"):
        table = json.loads(file.read_text())
        for note in table["annotations"]:
            note["area"] = 0
        file.write_text(json.dumps(table))
    for photo, before in zip(
        data.read_detection(*options(path)).photos["test"], expected, strict=True
    ):
        sides = before.box[:, 2:] - before.box[:, :2]
        np.testing.assert_allclose(photo.area, sides.prod(1))


def test_unreadable_pictures_are_named_before_training_or_skipped(tmp_path):
    path = tiny_coco.write(tmp_path)
    for number in (1, 2):
        file = path / "val" / f"00{number}.png"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    streamed = data.read_detection(*options(path, on_device=False)).source
    with pytest.raises(UserError, match=r"val/001.png is not a readable.*\(2 such pictures\)"):
        streamed.verify()
    with pytest.raises(UserError, match=r"val/001.png is not a readable picture"):
        data.read_detection(*options(path))
    (path / "train" / "003.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"3 unreadable pictures were skipped: train/003.png, val"):
        source = data.read_detection(*options(path, unreadable="skip", on_device=False)).source
    source.verify()
    assert source.size == {"train": 5, "validation": 2, "test": 1}


def test_an_image_of_another_size_is_an_error(tmp_path):
    path = tiny_coco.write(tmp_path, change=lambda s, t: spoil(s, t, image={"width": 60}))
    with pytest.raises(UserError, match="boxes would not fit"):
        data.read_detection(*options(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 100}, "set a multiple of 32"),
        ({"image_size": None}, "data.image_size is None"),
        ({"max_boxes": 0}, "data.max_boxes is 0"),
        ({"unreadable": "maybe"}, "data.unreadable is 'maybe'"),
        ({"batch_size": 99}, "batch_size is 99"),
    ],
)
def test_invalid_options_are_errors(folder, changed, message):
    with pytest.raises(UserError, match=message):
        data.read_detection(*options(folder, **changed))


def test_an_unknown_layout_is_an_error(tmp_path):
    for path, message in (
        ("", "is not set"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "no ann"),
    ):
        with pytest.raises(UserError, match=message):
            read_coco(str(path))
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="not a readable zip file"):
        read_coco(str(tmp_path / "bad.zip"))


def test_a_split_without_boxes_is_an_error(tmp_path):
    def change(split, instances):
        instances["annotations"] = []

    path = tiny_coco.write(tmp_path, change=change)
    with pytest.raises(UserError, match="no picture of the training split has a box"):
        data.read_detection(*options(path))


def test_valid_coco_gives_no_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = read_coco(str(folder))
    instances = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert sum(len(photo.box) for photo in dataset.train) == len(instances["annotations"])
