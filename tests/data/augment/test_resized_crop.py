"""Random resized crops against float64 numpy, Pillow, and the usual rejection sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from scipy import stats

from kdjax import data
from kdjax.data import BatchOptions, SplitOptions
from kdjax.data.augment import resized_crop
from kdjax.data.images import decode, streaming
from kdjax.data.images.decode import View
from kdjax.errors import UserError
from kdjax.types import Spec
from tests.data import fakes

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 30, 3), dtype=np.uint8)
SPEC = Spec((8, 8, 3), 4, tuple("abcd"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 255.0)
CANVASES = RNG.integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
SIZES = np.stack([RNG.integers(9, 30, 16), RNG.integers(9, 30, 16)], axis=1).astype(np.int32)
BATCH = {"image": CANVASES, "label": np.zeros(16, np.int32), "id": np.arange(16), "size": SIZES}


def triangle(length, start, extent, count):
    """Return the weights [count, length] of a triangle filter over a line of pixels, in float64."""
    step = extent / count
    width = max(step, 1.0)
    table = np.zeros((count, length))
    for i in range(count):
        center = start + (i + 0.5) * step
        for j in range(length):
            table[i, j] = max(0.0, 1 - abs(j + 0.5 - center) / width)
    return table / table.sum(1, keepdims=True)


def cut(image, box, shape):
    height, width, _ = image.shape
    rows = triangle(height, box[0] * height, box[2] * height, shape[0])
    columns = triangle(width, box[1] * width, box[3] * width, shape[1])
    return np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns)


BOXES = [  # top, left, height, width: full; shrunk; enlarged; each along one axis; a corner
    (0, 0, 1, 1),
    (0.1, 0.2, 0.8, 0.75),
    (0.3, 0.4, 0.2, 0.15),
    (0.05, 0.45, 0.9, 0.12),
    (0.75, 0.0, 0.25, 0.3),
]


class TestResample:
    @pytest.fixture(scope="class")
    def results(self):
        images = np.repeat(NOISE[None], len(BOXES), 0)
        return np.asarray(resized_crop.resample(images, jnp.array(BOXES, jnp.float32), (9, 7)))

    @pytest.mark.parametrize("number", range(len(BOXES)))
    def test_against_float64(self, results, number):
        # float32 sample positions: 1e-6 of 30 pixels, times up to 255 between neighbours
        assert np.allclose(results[number], cut(NOISE, BOXES[number], (9, 7)), atol=0.02)

    @pytest.mark.parametrize("number", range(len(BOXES)))
    def test_against_pillow(self, results, number):
        top, left, height, width = BOXES[number] * np.array([24, 30, 24, 30])
        box = (left, top, left + width, top + height)
        picture = Image.fromarray(NOISE).resize((7, 9), Image.Resampling.BILINEAR, box=box)
        # Pillow rounds to integers after each axis
        assert np.abs(results[number] - np.asarray(picture, np.float64)).max() <= 1.01

    def test_crops_of_the_canvas_and_of_the_image_agree(self):
        """A crop of the squeezed image equals a crop of the image except for fine detail."""
        y, x = np.mgrid[0:60, 0:90] / 60
        smooth = np.stack([np.sin(3 * x), np.cos(2 * y), x * y], -1)
        picture = np.uint8(127 + 100 * smooth / np.abs(smooth).max())
        squeezed, size = decode.squeeze(picture, 3, 40)
        assert (squeezed.shape, size) == ((40, 40, 3), (60, 90))
        box = (0.2, 0.1, 0.5, 0.6)
        actual = resized_crop.resample(squeezed[None], jnp.array([box]), (24, 28))[0]
        assert np.abs(np.asarray(actual) - cut(picture, box, (24, 28))).max() < 2  # of 200


def rejection(height, width, count, seed):
    """Sample areas (as shares), aspects and tops (as shares of their range) by rejection."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(0.08, 1)
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = np.sqrt(area / aspect), np.sqrt(area * aspect)
            if h <= height and w <= width:
                break
        else:
            aspect = np.clip(width / height, 3 / 4, 4 / 3)
            h, w = min(height, width / aspect), min(width, height * aspect)
        boxes.append((h * w / height / width, w / h))
    return np.array(boxes).T


@pytest.fixture(scope="module")
def drawn():
    """Return boxes of 3,000 images of each size: most boxes fit, few fit, none fits."""
    sizes = [(375, 500), (100, 1000), (1000, 10)]
    keys = jax.random.split(jax.random.key(5), (3, 3000))
    draw = jax.jit(jax.vmap(resized_crop.random_boxes))
    boxes = draw(keys, jnp.repeat(jnp.array(sizes)[:, None], 3000, axis=1))
    return dict(zip(sizes, np.asarray(boxes, np.float64), strict=True))


class TestRandomBoxes:
    @pytest.mark.parametrize("size", [(375, 500), (100, 1000)])
    def test_areas_and_aspects_match_rejection_sampling(self, drawn, size):
        boxes = drawn[size]
        actual = boxes[:, 2] * boxes[:, 3], boxes[:, 3] * size[1] / (boxes[:, 2] * size[0])
        for sample, expected in zip(actual, rejection(*size, 3000, seed=1), strict=True):
            # rounded, because boxes that do not fit share one value, which float32 changes
            assert stats.ks_2samp(sample.round(4), expected.round(4)).pvalue > 1e-3

    def test_boxes_are_inside_the_image_and_their_ranges(self, drawn):
        for size, boxes in drawn.items():
            assert boxes.min() >= 0
            assert (boxes[:, :2] + boxes[:, 2:]).max() <= 1 + 1e-6
            aspect = boxes[:, 3] * size[1] / (boxes[:, 2] * size[0])
            assert 3 / 4 - 1e-4 <= aspect.min() <= aspect.max() <= 4 / 3 + 1e-4
        area = drawn[375, 500][:, 2] * drawn[375, 500][:, 3]
        assert 0.08 - 1e-6 <= area.min() < 0.09
        assert area.max() > 0.9

    def test_positions_are_uniform(self, drawn):
        boxes = drawn[375, 500]
        for axis in (0, 1):
            free = 1 - boxes[:, 2 + axis]
            place = boxes[free > 1e-3, axis] / free[free > 1e-3]
            assert stats.kstest(place, "uniform").pvalue > 1e-3

    def test_the_centre_is_used_if_no_box_fits(self, drawn):
        assert np.allclose(drawn[1000, 10], [(1 - 0.01 * 4 / 3) / 2, 0, 0.01 * 4 / 3, 1], atol=1e-6)


class TestCentralBoxes:
    def test_matches_resize_and_central_crop(self):
        sizes = jnp.array([(400, 600), (600, 400), (50, 50)])
        boxes = resized_crop.central_boxes(sizes, (224, 224), 0.875)
        short = 0.875 * 400
        for box, (height, width) in zip(np.asarray(boxes), [(400, 600), (600, 400)], strict=False):
            expected = [(height - short) / 2 / height, (width - short) / 2 / width]
            assert np.allclose(box, [*expected, short / height, short / width], atol=1e-6)
        assert np.allclose(boxes[2], [0.0625, 0.0625, 0.875, 0.875])

    def test_host_and_device_crop_the_same_part(self):
        """`fit` is the crop of validation; both agree in the middle except for fine detail."""
        y, x = np.mgrid[0:64, 0:96] / 64
        picture = np.uint8(np.stack([100 * x, 200 * y, 80 * (x + y)], -1))
        host = decode.fit(picture, 3, View(28, 0.875))
        squeezed, size = decode.squeeze(picture, 3, 40)
        boxes = resized_crop.central_boxes(jnp.array([size]), (28, 28), 0.875)
        graph = resized_crop.resample(squeezed[None], boxes, (28, 28))[0]
        assert host.shape == (28, 28, 3)
        assert np.abs(np.asarray(graph) - host).max() < 3


class TestPrepare:
    def test_half_are_mirrored_and_each_example_has_its_box(self):
        left_to_right = np.broadcast_to(np.linspace(0, 255, 12)[None, :, None], (64, 12, 12, 3))
        crop = jax.jit(resized_crop.resized_crop_flip, static_argnames="shape")
        images = np.asarray(crop(left_to_right, jax.random.key(0), shape=(8, 8)))
        rising = (np.diff(images, axis=2) > -1e-3).all((1, 2, 3))
        falling = (np.diff(images, axis=2) < 1e-3).all((1, 2, 3))
        assert (rising ^ falling).all()
        assert 16 < falling.sum() < 48  # 4 standard deviations around half
        assert len(np.unique(np.sort(images[:, 0, [0, -1], 0].round(1), axis=1), axis=0)) > 60

    def test_results_do_not_depend_on_the_devices(self):
        prepare = data.prepare(SPEC, augment="resized_crop_flip")
        key = jax.random.key(3)
        single = jax.jit(prepare)(BATCH, key)
        assert set(single) == {"image", "label", "id", "mask"}
        assert single["image"].shape == (16, 8, 8, 3)
        divided = {name: x.reshape(8, 2, *x.shape[1:]) for name, x in BATCH.items()}
        mapped = jax.pmap(prepare, in_axes=(0, None))(divided, key)["image"]
        mesh = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
        placed = jax.jit(prepare)(jax.device_put(BATCH, mesh), key)["image"]
        for other in (mapped.reshape(16, 8, 8, 3), placed):
            assert np.allclose(other, single["image"], atol=1e-4)  # different order of summation
        order = np.argsort(RNG.random(16))
        again = jax.jit(prepare)({name: x[order] for name, x in BATCH.items()}, key)["image"]
        assert np.allclose(again, np.asarray(single["image"])[order], atol=1e-4)

    def test_members_have_different_draws(self):
        prepare = data.prepare(SPEC, augment="resized_crop_flip")
        keys = jax.random.split(jax.random.key(0), 2)
        members = jax.jit(jax.vmap(prepare, in_axes=(None, 0)))(BATCH, keys)["image"]
        assert np.allclose(members[1], jax.jit(prepare)(BATCH, keys[1])["image"], atol=1e-4)
        assert not np.allclose(members[0], members[1], atol=0.1)

    def test_no_key_gives_the_central_crop(self):
        images = jax.jit(data.prepare(SPEC, eval_crop=0.75))(BATCH)["image"]
        height, width = SIZES[5]
        short = 0.75 * min(height, width)
        extent = short / height, short / width
        box = ((1 - extent[0]) / 2, (1 - extent[1]) / 2, *extent)
        expected = (cut(CANVASES[5], box, (8, 8)) / 255 - SPEC.mean) / SPEC.std
        assert np.allclose(images[5], expected, atol=1e-3)

    def test_images_without_sizes_fill_the_canvas(self):
        prepare = data.prepare(SPEC, augment="resized_crop_flip")
        batch = {"image": CANVASES[:, :8, :8], "label": np.zeros(16)}
        plain = data.prepare(SPEC)(batch)["image"]
        assert np.array_equal(prepare(batch)["image"], plain)
        moved = jax.jit(prepare)(batch, jax.random.key(0))["image"]
        assert moved.shape == plain.shape
        assert not np.allclose(moved, plain, atol=0.1)

    def test_a_batch_of_another_shape_is_an_error(self):
        batch = {"image": CANVASES, "label": np.zeros(16)}
        with pytest.raises(UserError, match=r"\(12, 12, 3\) but the data set's spec says"):
            data.prepare(SPEC, augment="resized_crop_flip")(batch, jax.random.key(0))


def wide(row):
    return np.full((6 + row % 3, 12, 3), row, np.uint8), row % 3


class TestSource:
    @pytest.fixture(scope="class")
    def source(self):
        records = fakes.records(labelled=False, get=wide)
        records = records._replace(view=View(4, 0.875, 5), test=streaming.Records(wide, 7))
        return streaming.build(records, BatchOptions(6, 4), SplitOptions(validation=5))

    def test_training_batches_have_full_images(self, source):
        assert source.arrays is None
        assert source.spec.shape == (4, 4, 3)
        batches = source.train(3, 0)
        batch = next(batches)
        batches.close()
        assert batch["image"].shape == (6, 5, 5, 3)
        assert batch["size"].dtype == np.int32
        rows = batch["image"][:, 0, 0, 0]
        assert batch["size"].tolist() == [[6 + row % 3, 12] for row in rows.tolist()]

    def test_evaluation_batches_have_the_final_shape(self, source):
        for split in ("validation", "test"):
            for batch in source.evals[split]():
                assert batch["image"].shape == (4, 4, 4, 3)
                assert "size" not in batch
        shapes = [(b["image"].shape, b["size"].shape) for b in source.evals["train"]()]
        assert set(shapes) == {((4, 5, 5, 3), (4, 2))}

    def test_a_folder_of_images(self, tmp_path):
        fakes.write_pictures(tmp_path, size=(9, 15))
        source = fakes.load(
            "folder", path=str(tmp_path), batch_size=4, image_size=7, augment="resized_crop_flip"
        )
        batches = source.train(0, 0)
        batch = next(batches)
        batches.close()
        assert batch["image"].shape == (4, 10, 10, 3)
        assert batch["size"].tolist() == [[9, 15]] * 4
        assert next(source.evals["test"]())["image"].shape == (256, 7, 7, 3)

    @pytest.mark.parametrize(
        ("arguments", "pattern"),
        [
            ({"canvas": 9}, r"data\.canvas is 9 but data\.image_size is not set"),
            ({"eval_crop": 0.5}, r"data\.eval_crop is 0\.5 but data\.image_size is not set"),
            ({"image_size": 8, "canvas": 9}, r"it belongs to data\.augment=resized_crop_flip only"),
            ({"image_size": 8, "eval_crop": 0.0}, r"it must lie in \(0, 1\]"),
            ({"image_size": 8, "eval_crop": 1.5}, r"it must lie in \(0, 1\]"),
            ({"image_size": 0}, r"data\.image_size is 0; it must be >= 1"),
            (
                {"image_size": 8, "augment": "resized_crop_flip", "canvas": 7},
                r"at least data\.image_size = 8",
            ),
            (
                {"image_size": 4, "augment": "resized_crop_flip", "on_device": True},
                r"data\.on_device is True but .*leave data\.on_device at auto",
            ),
        ],
    )
    def test_errors(self, tmp_path, arguments, pattern):
        fakes.write_pictures(tmp_path)
        with pytest.raises(UserError, match=pattern) as caught:
            fakes.load("folder", path=str(tmp_path), batch_size=4, **arguments)
        assert "\n" not in str(caught.value)
