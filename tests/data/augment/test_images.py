"""Augmentation and normalisation of a batch inside the compiled step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data
from kdjax.errors import UserError
from kdjax.types import Spec

SPEC = Spec((8, 6, 3), 4, tuple("abcd"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 255.0)
IMAGES = np.random.default_rng(0).integers(1, 256, (64, 8, 6, 3), dtype=np.uint8)


def crops(image, padding):
    """Return every crop of the zero-padded image, as numpy slices: [offsets, h, w, c]."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    span = range(2 * padding + 1)
    height, width, _ = image.shape
    return np.stack([padded[i : i + height, j : j + width] for i in span for j in span])


class TestRandomCropFlip:
    def test_every_result_is_a_crop_of_its_image(self):
        result = np.asarray(
            data.random_crop_flip(jnp.asarray(IMAGES), jax.random.key(0), padding=2)
        )
        assert result.dtype == np.uint8
        chosen, mirrored = [], []
        for image, crop in zip(IMAGES, result, strict=True):
            plain, flipped = crops(image, 2), crops(image, 2)[:, :, ::-1]
            straight = (plain == crop).all((1, 2, 3))
            turned = (flipped == crop).all((1, 2, 3))
            assert straight.any() or turned.any()
            chosen.append(int((straight | turned).argmax()))
            mirrored.append(bool(turned.any()))
        assert len(set(chosen)) > 12  # of 25 offsets in 64 draws: examples differ
        assert 16 < sum(mirrored) < 48  # 4 standard deviations around half

    def test_offsets_are_uniform(self):
        image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
        many = np.repeat(image, 4500, axis=0)
        result = data.random_crop_flip(jnp.asarray(many), jax.random.key(1), padding=1, flip=False)
        table = crops(image[0], 1)
        counts = [(np.asarray(result) == crop).all((1, 2, 3)).sum() for crop in table]
        assert sum(counts) == 4500
        # chi-squared with 8 degrees of freedom is below 26.1 in 999 of 1,000 draws
        assert sum((count - 500) ** 2 / 500 for count in counts) < 26.1

    def test_no_padding_and_no_flip_is_the_identity(self):
        result = data.random_crop_flip(
            jnp.asarray(IMAGES), jax.random.key(0), padding=0, flip=False
        )
        assert np.array_equal(result, IMAGES)

    def test_flips_only_mirror(self):
        result = np.asarray(
            data.random_crop_flip(jnp.asarray(IMAGES), jax.random.key(2), padding=0)
        )
        for image, crop in zip(IMAGES, result, strict=True):
            assert np.array_equal(crop, image) or np.array_equal(crop, image[:, ::-1])

    def test_results_depend_on_the_key_only(self):
        first, again, other = (
            np.asarray(data.random_crop_flip(jnp.asarray(IMAGES), jax.random.key(k)))
            for k in (0, 0, 1)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_single_image_is_an_error(self):
        with pytest.raises(ValueError, match=r"\(8, 6, 3\) must be \[batch"):
            data.random_crop_flip(jnp.asarray(IMAGES[0]), jax.random.key(0))


BATCH = {"image": IMAGES, "label": np.zeros(64, np.int64), "id": np.arange(64)}


class TestPrepare:
    def test_normalises_and_adds_missing_fields(self):
        result = data.prepare(SPEC)(BATCH)
        reference = (IMAGES.astype(np.float64) / 255 - SPEC.mean) / SPEC.std
        # float32 division, subtraction, division: a few units of 6e-8 at values up to 4
        assert np.allclose(result["image"], reference, atol=2e-6)
        assert result["image"].dtype == jnp.float32
        assert result["label"].dtype == jnp.int32
        assert result["mask"].tolist() == [1.0] * 64
        assert np.array_equal(result["id"], np.arange(64))

    def test_keeps_the_mask(self):
        mask = np.arange(64) < 60
        assert data.prepare(SPEC)({**BATCH, "mask": mask})["mask"].sum() == 60

    def test_augments_only_with_a_key(self):
        plain = data.prepare(SPEC)(BATCH)["image"]
        augmenting = data.prepare(SPEC, augment="crop_flip")
        assert np.array_equal(augmenting(BATCH)["image"], plain)
        assert np.array_equal(data.prepare(SPEC)(BATCH, jax.random.key(0))["image"], plain)
        assert not np.array_equal(augmenting(BATCH, jax.random.key(0))["image"], plain)

    def test_border_is_black_before_normalising(self):
        white = {"image": np.full((32, 8, 6, 3), 255, np.uint8), "label": np.zeros(32)}
        image = data.prepare(SPEC, augment="crop")(white, jax.random.key(0))["image"]
        black = -np.asarray(SPEC.mean) / np.asarray(SPEC.std)
        light = (1 - np.asarray(SPEC.mean)) / np.asarray(SPEC.std)
        near = [np.isclose(image, value, atol=1e-5).all(-1) for value in (black, light)]
        assert np.all(near[0] | near[1])
        assert near[0].any()

    def test_crop_does_not_mirror(self):
        key = jax.random.key(3)
        image = data.prepare(SPEC, augment="crop", padding=2)(BATCH, key)["image"]
        shifted = data.random_crop_flip(jnp.asarray(IMAGES), key, padding=2, flip=False)
        assert np.array_equal(image, data.normalize(shifted, SPEC.mean, SPEC.std, SPEC.scale))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
    def test_any_pixel_dtype(self, dtype):
        batch = {"image": IMAGES.astype(dtype), "label": np.zeros(64)}
        image = data.prepare(SPEC, augment="crop_flip")(batch, jax.random.key(0))["image"]
        reference = data.prepare(SPEC, augment="crop_flip")(BATCH, jax.random.key(0))["image"]
        assert np.array_equal(image, reference)

    def test_eager_equals_jit_and_vmap_over_keys(self):
        prepare = data.prepare(SPEC, augment="crop_flip")
        keys = jax.random.split(jax.random.key(0), 3)
        batch = {name: jnp.asarray(value) for name, value in BATCH.items()}
        members = jax.jit(jax.vmap(prepare, in_axes=(None, 0)))(batch, keys)["image"]
        one = jax.jit(prepare)(batch, keys[1])["image"]
        # compiled division may become a multiplication: the last bit differs
        assert np.allclose(prepare(batch, keys[1])["image"], one, atol=1e-6)
        assert np.allclose(members[1], one, atol=1e-6)
        assert not np.array_equal(members[0], members[1])

    def test_under_pmap(self):
        batch = {"image": IMAGES[None], "label": np.zeros((1, 64), np.int32)}
        keys = jax.random.split(jax.random.key(0), 1)
        prepare = data.prepare(SPEC, augment="crop_flip")
        image = jax.pmap(prepare)(batch, keys)["image"][0]
        single = prepare({"image": IMAGES, "label": np.zeros(64)}, keys[0])["image"]
        assert np.allclose(image, single, atol=1e-6)

    def test_errors(self):
        with pytest.raises(UserError, match=r"data\.augment is 'flips'; choose from none, "):
            data.prepare(SPEC, augment="flips")
        with pytest.raises(
            UserError, match=r"\(6, 6, 3\) but the data set's spec says \(8, 6, 3\)"
        ):
            data.prepare(SPEC)({"image": IMAGES[:, :6], "label": np.zeros(64)})


ARRAYS = {"image": jnp.asarray(IMAGES), "label": jnp.arange(64)}


class TestLookup:
    def test_images_are_gathered_inside_the_step(self):
        ids = np.array([5, 0, 63], np.int32)
        batch = jax.jit(data.lookup)(ARRAYS, {"id": ids})
        assert np.array_equal(batch["image"], IMAGES[ids])
        assert batch["label"].tolist() == ids.tolist() == batch["id"].tolist()

    def test_complete_batches_are_unchanged(self):
        batch = {"id": np.zeros(2, np.int32), "image": IMAGES[:2]}
        assert data.lookup(ARRAYS, batch)["image"] is batch["image"]
        assert data.lookup(None, {"id": batch["id"]}) == {"id": batch["id"]}


class TestText:
    SPEC = SPEC._replace(inputs={"input_ids": ((8,), "int32")}, vocab_size=9, task="glue/sst2")

    def test_text_is_unchanged(self):
        batch = {"input_ids": np.ones((2, 8), np.int32), "label": np.array([0.5, 1.0], np.float32)}
        for key in (None, jax.random.key(0)):
            result = data.prepare(self.SPEC)(batch, key)
            assert {name: x.dtype for name, x in result.items()} == {
                name: x.dtype for name, x in batch.items()
            }
            assert all(np.array_equal(result[name], batch[name]) for name in batch)

    def test_text_is_not_augmented(self):
        with pytest.raises(UserError, match=r"data\.augment is 'crop'.*text is not augmented"):
            data.prepare(self.SPEC, augment="crop")


def test_a_second_view_is_another_augmentation_of_the_same_images():
    batch = {"image": IMAGES, "label": np.zeros(64, np.int32)}
    one = data.prepare(SPEC, augment="crop_flip")(batch, jax.random.key(0))
    prepare = data.prepare(SPEC, augment="crop_flip", second_view=True)
    two = prepare(batch, jax.random.key(0))
    assert np.array_equal(one["image"], two["image"])
    assert two["view"].shape == two["image"].shape
    assert not np.array_equal(two["view"], two["image"])
    assert "view" not in prepare(batch)  # evaluation has one view


def test_a_second_view_needs_an_augmentation():
    with pytest.raises(UserError, match=r"data.augment is 'none', but a term compares two views"):
        data.prepare(SPEC, second_view=True)
