"""Networks by name: sizes, features, statistics, precision, members under vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.layers import layers
from kdjax.models.transformers import TRANSFORMERS
from kdjax.types import Variables

# Trainable parameters with 100 and with 10 classes, and the pooled width. Depths 14 and 44 are not
# in the published table: six more layers add 97,216, as from depth 8 to 20 to 32. A vgg is its 3x3
# convolutions with bias, two numbers a channel for batch norm and one linear layer: depths 11, 16
# and 19 differ from 13 by 9 * in * out + 3 * out for each convolution.
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
    "vgg8": (3_965_028, 3_918_858, 512),
    "vgg11": (9_277_284, 9_231_114, 512),
    "vgg13": (9_462_180, 9_416_010, 512),
    "vgg16": (14_774_436, 14_728_266, 512),
    "vgg19": (20_086_692, 20_040_522, 512),
    # 18, 34 and 101 as published for the 3x3 stem with 10 classes
    # by hand: ResNet18's minus the second block of each stage, sum of 18 w^2 + 4 w
    "ResNet10": (4_949_412, 4_903_242, 512),
    "ResNet18": (11_220_132, 11_173_962, 512),
    "ResNet34": (21_328_292, 21_282_122, 512),
    "ResNet50": (23_705_252, 23_520_842, 2048),
    "ResNet101": (42_697_380, 42_512_970, 2048),
    # 4,231,976 with 1000 classes, minus 1025 for each class
    "MobileNetV1": (3_309_476, 3_217_226, 1024),
    "MobileNetV2": (812_836, 697_546, 1280),
    "ShuffleV1": (949_258, 862_768, 960),
    "ShuffleV2": (1_355_528, 1_263_278, 1024),
    # as torchvision and timm state them with 1000 classes, minus what the classes take
    "vgg11_bn": (132_868_840 - 900 * 4097, 132_868_840 - 990 * 4097, 4096),
    "vgg13_bn": (133_053_736 - 900 * 4097, 133_053_736 - 990 * 4097, 4096),
    "vgg16_bn": (138_365_992 - 900 * 4097, 138_365_992 - 990 * 4097, 4096),
    "vgg19_bn": (143_678_248 - 900 * 4097, 143_678_248 - 990 * 4097, 4096),
    "mobilenet_v2": (3_504_872 - 900 * 1281, 3_504_872 - 990 * 1281, 1280),
    "mobilenetv2_100": (3_504_872 - 900 * 1281, 3_504_872 - 990 * 1281, 1280),
    # ResNet10's, with 27 * 24 + 9 * 24 * 32 + 9 * 32 * 64 in place of 27 * 64 in the stem, and two
    # batch norms more
    "resnet10t": (
        4_949_412 + 27 * 24 + 9 * 24 * 32 + 9 * 32 * 64 - 27 * 64 + 2 * (24 + 32),
        4_903_242 + 27 * 24 + 9 * 24 * 32 + 9 * 32 * 64 - 27 * 64 + 2 * (24 + 32),
        512,
    ),
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


@functools.cache
def _traced(name):
    """Trace a network of ten classes once for all tests; deep networks take seconds."""
    variables, (outputs, _) = _shapes(models.build(name, num_classes=10))
    return variables, outputs


def _small_cnn(**options):
    model = models.build("cnn", num_classes=3, widths=(4, 8), **options)
    return model, jax.jit(model.init)(jax.random.key(0), SMALL)


def test_every_name_has_a_row():
    # the others are in test_transformers, test_representation and test_detector
    others = (*TRANSFORMERS, "lipschitz_mlp", "faster_rcnn")
    assert set(models.names()) == {*COUNTS, *others}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_pooled_width(name):
    many, few, width = COUNTS[name]
    variables, outputs = _traced(name)
    assert models.parameter_count(variables) == few
    assert outputs.logits.shape == (2, 10)
    assert outputs.features["pooled"].shape == (2, width)
    # only the last layer depends on the classes
    assert variables.params["fc"]["kernel"].shape == (width, 10)
    assert many == few + 90 * (width + 1)


@pytest.mark.parametrize(
    ("name", "sizes", "widths"),
    [
        ("resnet8", (32, 32, 16, 8), (16, 16, 32, 64)),
        ("wrn_16_2", (32, 32, 16, 8), (16, 32, 64, 128)),
        ("vgg11", (32, 16, 8, 4, 4), (64, 128, 256, 512, 512)),
        ("ResNet18", (32, 32, 16, 8, 4), (64, 64, 128, 256, 512)),
        ("ResNet50", (32, 32, 16, 8, 4), (64, 256, 512, 1024, 2048)),
        ("MobileNetV1", (16, 8, 4, 2, 1), (32, 128, 256, 512, 1024)),
        ("MobileNetV2", (16, 16, 8, 4, 2), (16, 12, 16, 48, 160)),
        ("ShuffleV1", (32, 16, 8, 4), (24, 240, 480, 960)),
        ("ShuffleV2", (32, 16, 8, 4), (24, 116, 232, 464)),
    ],
)
def test_named_features(name, sizes, widths):
    _, outputs = _traced(name)
    pooled = {"MobileNetV2": 1280, "ShuffleV2": 1024}.get(name, widths[-1])
    expected = {"pooled": (2, pooled)}
    for stage, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        shape = (2, size, size, width)
        expected[f"stage{stage}" if stage else "stem"] = shape
        # the blocks of MobileNetV2 have no final activation
        if stage and name != "MobileNetV2":
            expected[f"stage{stage}_pre"] = shape
    actual = {name: feature.shape for name, feature in outputs.features.items()}
    *_, last = actual.pop("last_map")
    assert last == pooled
    assert actual == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [("ResNet18", 11_689_512), ("ResNet34", 21_797_672), ("ResNet50", 25_557_032),
     ("ResNet101", 44_549_160), ("MobileNetV1", 4_231_976)],
)  # fmt: skip
def test_networks_for_imagenet(name, count):
    options = {"stem": "imagenet"} if name.startswith("ResNet") else {}
    model = models.build(name, num_classes=1000, **options)
    images = {"image": jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)}
    variables, (outputs, _) = _shapes(model, images)
    assert models.parameter_count(variables) == count
    assert [outputs.features[f"stage{stage}"].shape[1] for stage in (1, 2, 3, 4)] == [56, 28, 14, 7]


def test_vgg_halves_larger_images_once_more():
    images = {"image": jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)}
    outputs, _ = _shapes(models.build("vgg8", num_classes=10), images)[1]
    assert [outputs.features[f"stage{stage}"].shape[1] for stage in (1, 2, 3, 4)] == [32, 16, 8, 4]


def test_wrn_of_any_depth():
    outputs, _ = _shapes(models.build("wrn_10_3", num_classes=10))[1]
    assert outputs.features["pooled"].shape == (2, 192)


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "resnet8", "wrn_10_1", "vgg8", "ResNet18", "MobileNetV2", "ShuffleV1"]
)
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
    actual = low.apply(variables, SMALL, train=True)[0].logits
    # a few roundings to 8 bits, most of which pass through batch norm over 16 values
    np.testing.assert_allclose(actual, exact, atol=0.05)
    assert not np.array_equal(actual, exact)


def test_statistics_change_in_training_only():
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
    actual = stats["batch_stats"]["bn1"]
    np.testing.assert_allclose(actual["mean"], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(actual["var"], 0.9 + 0.1 * var, rtol=1e-5)
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
            # float32 sums in another order; ReLU's zeros are exact
            np.testing.assert_allclose(a[i], b, atol=1e-5)


def test_batch_norm_over_an_axis_equals_the_whole_batch():
    model, variables = _small_cnn()
    split, _ = _small_cnn(axis_name="data")
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), SMALL)
    full, stats = model.apply(variables, SMALL, train=True)
    actual, moved = jax.vmap(
        lambda batch: split.apply(variables, batch, train=True), axis_name="data"
    )(halves)
    np.testing.assert_allclose(actual.logits.reshape(4, -1), full.logits, atol=1e-5)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(a, jnp.stack([b, b]), atol=1e-6)
    # evaluation needs no axis
    assert split.apply(variables, SMALL, train=False)[0].logits.shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet9", {}, 'unknown model "resnet9"; did you mean resnet.*Models: mlp, cnn'),
        (
            "cnn",
            {"width": 3},
            'model "cnn" has no option "width"; it has: axis_name, dtype, widths',
        ),
        ("MobileNetV1", {"width": 3}, 'no option "width"; it has: axis_name, dtype$'),  # a module
        ("resnet18", {}, "did you mean ResNet18"),
        ("mobilenetv2", {}, "did you mean MobileNetV2"),
        ("resnet8", {"depth": 9}, 'no option "depth"'),
        ("resnet8", {"shortcut": "none"}, 'shortcut is \'none\': use "conv" or "pad"'),
        ("wrn_17_1", {}, "depth is 17: use 6n"),
        ("wrn_16_0", {}, "widen is 0"),
        ("mlp", {"hidden": (0,)}, r"mlp: hidden is \(0,\): use a list of whole numbers"),
        ("mlp", {"hidden": 128}, "mlp: hidden is 128: use a list"),
        ("cnn", {"widths": ()}, "cnn: widths is empty"),
        ("resnet20", {"widths": (16, 16, 32)}, "give four"),
        ("ResNet18", {"stem": "big"}, 'ResNet18: stem is \'big\': use "cifar" or "imagenet"'),
        ("MobileNetV2", {"width": 0.01}, "width is 0.01: use at least"),
        ("vgg13", {"depth": 16}, 'no option "depth"'),
        ("mlp", {"dtype": "int8"}, "dtype is 'int8'"),
        ("mlp", {"dtype": "floot"}, "dtype is 'floot'"),
        ("mlp", {"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_errors_are_one_line(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        models.build(name, **{"num_classes": 10, **options})
    assert "\n" not in str(caught.value)


def test_images_that_are_too_small_are_errors():
    images = {"image": jax.ShapeDtypeStruct((2, 7, 7, 3), jnp.float32)}
    with pytest.raises(UserError, match="vgg8 cannot take 7x7 images: use at least 8x8"):
        _shapes(models.build("vgg8", num_classes=10), images)


def test_an_image_of_another_size_or_rank_is_an_error():
    model, variables = _small_cnn()
    with pytest.raises(UserError, match=r"\(4, 8, 8, 3\) does not fit"):
        model.apply(variables, {"image": np.zeros((4, 8, 8, 3), np.float32)}, train=False)
    with pytest.raises(UserError, match="images are"):
        model.apply(variables, {"image": np.zeros((4, 64), np.float32)}, train=False)


def test_a_certificate_of_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="kind is 'spektral'; there are spectral, bjorck"):
        models.lipschitz_mlp_bound(Variables({}, {}), "spektral")


@pytest.mark.parametrize("name", ["mlp", "lipschitz_mlp", "faster_rcnn"])
def test_a_batch_without_images_is_refused_by_name(name):
    model = models.build(name, num_classes=3)
    with pytest.raises(UserError, match=r"reads batch\[\"image\"\], but the batch has \['view'\]"):
        model.init(jax.random.key(0), {"view": np.zeros((1, 64, 64, 3), np.float32)})


@pytest.mark.parametrize("size", [(7, 8), (1, 6)])
def test_max_pool_is_the_windowed_maximum_with_its_gradient(size):
    x = jnp.float32(np.random.default_rng(0).normal(size=(2, *size, 3)))  # without ties

    def windowed(x):
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), border)

    np.testing.assert_array_equal(layers.max_pool(x), windowed(x))

    def gradient(pool):
        return jax.grad(lambda x: jnp.sin(pool(x)).sum())(x)

    np.testing.assert_allclose(gradient(layers.max_pool), gradient(windowed), rtol=1e-6)
