"""Networks by name: sizes, features, statistics, precision, members under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.types import UserError, Variables

# Trainable parameters with 100 and with 10 classes, and the pooled width. Depths 14 and 44 are not
# in the published table: six more layers add 97,216, as from depth 8 to 20 to 32.
COUNTS = {
    "resnet8": (83_892, 78_042, 64),
    "resnet14": (181_108, 175_258, 64),
    "resnet20": (278_324, 272_474, 64),
    "resnet32": (472_756, 466_906, 64),
    "resnet44": (667_188, 661_338, 64),
    "resnet56": (861_620, 855_770, 64),
    "resnet110": (1_736_564, 1_730_714, 64),
    "resnet8x4": (1_233_540, 1_210_410, 256),
    "resnet32x4": (7_433_860, 7_410_730, 256),
    "wrn_16_1": (180_916, 175_066, 64),
    "wrn_16_2": (703_284, 691_674, 128),
    "wrn_40_1": (569_780, 563_930, 64),
    "wrn_40_2": (2_255_156, 2_243_546, 128),
    # by hand: 3072 * 128 + 128 + 128 * 128 + 128 + 129 * classes
    "mlp": (422_756, 411_146, 128),
    # by hand: 9 * (3 * 16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 65 * classes
    "cnn": (30_196, 24_346, 64),
}
IMAGES = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)}
SMALL = {"image": np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)}


def _shapes(model, batch=IMAGES, train=False):
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    return variables, jax.eval_shape(lambda v, b: model.apply(v, b, train=train), variables, batch)


def _small_cnn(**options):
    model = models.build("cnn", num_classes=3, widths=(4, 8), **options)
    return model, jax.jit(model.init)(jax.random.key(0), SMALL)


def test_every_name_has_its_row():
    assert set(models.names()) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_pooled_width(name):
    for classes, count in zip((100, 10), COUNTS[name], strict=False):
        model = models.build(name, num_classes=classes)
        variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
        assert models.parameter_count(variables) == count
    outputs, _ = _shapes(model)[1]
    assert outputs.logits.shape == (2, 10)
    assert outputs.features["pooled"].shape == (2, COUNTS[name][2])


@pytest.mark.parametrize(
    ("name", "widths"), [("resnet8", (16, 16, 32, 64)), ("wrn_16_2", (16, 32, 64, 128))]
)
def test_named_features(name, widths):
    outputs, _ = _shapes(models.build(name, num_classes=10))[1]
    sizes = (32, 32, 16, 8)
    expected = {"pooled": (2, widths[3]), "stem": (2, 32, 32, widths[0])}
    for stage in (1, 2, 3):
        shape = (2, sizes[stage], sizes[stage], widths[stage])
        expected |= {f"stage{stage}": shape, f"stage{stage}_pre": shape}
    assert {name: feature.shape for name, feature in outputs.features.items()} == expected


def test_wrn_of_any_depth():
    outputs, _ = _shapes(models.build("wrn_10_3", num_classes=10))[1]
    assert outputs.features["pooled"].shape == (2, 192)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8", "wrn_10_1"])
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(name):
    model = models.build(name, num_classes=10, dtype="bfloat16")
    variables, (outputs, stats) = _shapes(model, train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, stats))} == {jnp.dtype("float32")}
    assert outputs.logits.dtype == outputs.features["pooled"].dtype == jnp.float32
    inner = "hidden0" if name == "mlp" else "stage1"
    assert outputs.features[inner].dtype == jnp.bfloat16


def test_bfloat16_is_close_to_float32():
    model, variables = _small_cnn()
    low, _ = _small_cnn(dtype="bfloat16")
    exact = model.apply(variables, SMALL, train=True)[0].logits
    found = low.apply(variables, SMALL, train=True)[0].logits
    # a few roundings to 8 bits, of which batch norm over 16 values keeps most
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert not np.array_equal(found, exact)


def test_evaluation_leaves_statistics_and_training_moves_all():
    model, variables = _small_cnn()
    _, stats = model.apply(variables, SMALL, train=False)
    assert stats is variables.stats
    _, jitted = jax.jit(lambda v: model.apply(v, SMALL, train=False))(variables)
    _, moved = jax.jit(lambda v: model.apply(v, SMALL, train=True))(variables)
    assert jax.tree.structure(moved) == jax.tree.structure(variables.stats)
    for before, same, after in zip(*map(jax.tree.leaves, (stats, jitted, moved)), strict=True):
        assert np.array_equal(before, same)
        assert not np.any(np.isclose(before, after, rtol=1e-6, atol=0))


def test_running_statistics_take_a_tenth_of_the_batch():
    model, variables = _small_cnn()
    outputs, stats = model.apply(variables, SMALL, train=True)
    kernel = variables.params["conv1"]["kernel"]
    x = np.pad(SMALL["image"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    conv = np.einsum("bhwcij,ijco->bhwo", np.float64(windows), np.float64(kernel))
    mean, var = conv.mean((0, 1, 2)), conv.var((0, 1, 2))
    found = stats["batch_stats"]["bn1"]
    np.testing.assert_allclose(found["mean"], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * var, rtol=1e-5)
    normed = (conv - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(outputs.features["stage1"], np.maximum(normed, 0), atol=1e-5)


def test_members_under_vmap_equal_single_runs_with_gradients():
    model, _ = _small_cnn()
    keys = jax.random.split(jax.random.key(1), 3)
    stacked = jax.jit(jax.vmap(lambda key: model.init(key, SMALL)))(keys)

    def gradient(variables):
        def loss(params):
            outputs, stats = model.apply(Variables(params, variables.stats), SMALL, train=True)
            return (outputs.logits**2).mean(), (outputs, stats)

        return jax.grad(loss, has_aux=True)(variables.params)

    together, one = jax.jit(jax.vmap(gradient))(stacked), jax.jit(gradient)
    for i in range(3):
        alone = one(jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            # float32, sums in another order; ReLU's zeros are exact
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_batch_norm_over_an_axis_equals_the_whole_batch():
    model, variables = _small_cnn()
    split, _ = _small_cnn(axis_name="data")
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), SMALL)
    whole, stats = model.apply(variables, SMALL, train=True)
    found, moved = jax.vmap(
        lambda batch: split.apply(variables, batch, train=True), axis_name="data"
    )(halves)
    np.testing.assert_allclose(found.logits.reshape(4, -1), whole.logits, atol=1e-5)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(a, jnp.stack([b, b]), atol=1e-6)
    # evaluation needs no axis
    assert split.apply(variables, SMALL, train=False)[0].logits.shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet9", {}, 'unknown model "resnet9".*"resnet.*Models: mlp, cnn'),
        (
            "cnn",
            {"width": 3},
            'model "cnn" has no option "width"; it has: axis_name, dtype, widths',
        ),
        ("resnet8", {"depth": 9}, 'no option "depth"'),
        ("resnet8", {"shortcut": "none"}, 'shortcut is \'none\': use "conv" or "pad"'),
        ("wrn_17_1", {}, "depth is 17: use 6n"),
        ("wrn_16_0", {}, "widen is 0"),
        ("mlp", {"hidden": (0,)}, r"mlp: hidden is \(0,\): use a list of whole numbers"),
        ("mlp", {"hidden": 128}, "mlp: hidden is 128: use a list"),
        ("cnn", {"widths": ()}, "cnn: widths is empty"),
        ("resnet20", {"widths": (16, 16, 32)}, "give four"),
        ("mlp", {"dtype": "int8"}, "dtype is 'int8'"),
        ("mlp", {"dtype": "floot"}, "dtype is 'floot'"),
        ("mlp", {"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_mistakes_are_one_clear_line(name, options, says):
    with pytest.raises(UserError, match=says) as caught:
        models.build(name, **{"num_classes": 10, **options})
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_or_rank_is_refused():
    model, variables = _small_cnn()
    with pytest.raises(UserError, match=r"\(4, 8, 8, 3\) does not fit"):
        model.apply(variables, {"image": np.zeros((4, 8, 8, 3), np.float32)}, train=False)
    with pytest.raises(UserError, match="images are"):
        model.apply(variables, {"image": np.zeros((4, 64), np.float32)}, train=False)
