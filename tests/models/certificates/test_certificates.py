"""Certificates: parts compose to the network, and no pair of inputs exceeds their constants."""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import bounds, models
from kdjax.errors import UserError
from kdjax.models import certificates
from kdjax.models.certificates import layers, maps
from kdjax.models.vision import mobilenet
from kdjax.types import Variables

# Networks without constants: of texts, detectors, and families that came later.
OTHERS = re.compile(
    "bert|distilbert|roberta|t5|gpt.*|llama|mistral|qwen.|faster_rcnn|vit.*|deit.*|vgg.*_bn|"
    "mobilenet.*|resnet10t"
)
IMAGES = [n for n in models.names() if not OTHERS.fullmatch(n)] + ["wrn_22_3"]
# One of each family and option; wide and deep families are reduced by their tables.
FAMILIES = {
    "mlp": ("mlp", {"hidden": (7, 5)}, (4, 3, 2)),
    "mlp without hidden layers": ("mlp", {"hidden": ()}, (4, 3, 2)),
    "lipschitz_mlp": ("lipschitz_mlp", {"hidden": (8, 6)}, (4, 3, 2)),
    "lipschitz_mlp, Bjorck": ("lipschitz_mlp", {"hidden": (8,), "kind": "bjorck"}, (4, 3, 2)),
    "cnn": ("cnn", {"widths": (3, 4)}, (6, 5, 2)),
    "vgg": ("vgg11", {}, (8, 8, 1)),
    "resnet": ("resnet14", {"widths": (3, 3, 4, 6)}, (7, 6, 1)),
    "resnet, padded": ("resnet8", {"widths": (3, 4, 4, 7), "shortcut": "pad"}, (6, 6, 1)),
    "wrn": ("wrn_16_1", {}, (4, 5, 1)),
    "ResNet18": ("ResNet18", {"stem": "imagenet"}, (12, 12, 1)),
    "ResNet50": ("ResNet50", {}, (3, 3, 1)),
    "MobileNetV1": ("MobileNetV1", {}, (8, 8, 1)),
    "MobileNetV2": ("MobileNetV2", {"width": 0.125}, (8, 8, 1)),
    "ShuffleV1": ("ShuffleV1", {}, (6, 6, 1)),
    "ShuffleV2": ("ShuffleV2", {}, (6, 6, 1)),
}
SMALL = {
    "vgg._WIDTHS": (3, 4, 5, 6, 4),
    "resnet._BLOCKS": {18: ((1, 2, 0, 0), False), 50: ((2, 1, 0, 0), True)},
    "mobilenet._V1": tuple((4 + 2 * (n // 4), 2 if n in (1, 3, 5, 11) else 1) for n in range(13)),
    "mobilenet._V2": tuple(
        (expansion, channels, min(count, 2), stride)
        for expansion, channels, count, stride in mobilenet._V2
    ),
    "shufflenet._V1": ((60, 2), (120, 2), (240, 2)),
    "shufflenet._V2": ((8, 2), (12, 3), (16, 2)),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(layers, "WORK", 1e6)
    monkeypatch.setattr(layers, "ITERATIONS", 4)
    for path, value in SMALL.items():
        module, table = path.split(".")  # set separately: models.vgg is a function
        monkeypatch.setattr(importlib.import_module(f"kdjax.models.vision.{module}"), table, value)


def network(name, shape, **options):
    """Return a network with random weights and statistics from numpy (no compilation)."""
    model = models.build(name, num_classes=3, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), {"image": jnp.zeros((1, *shape))})
    rng = np.random.default_rng(0)

    def draw(path, x):
        kind = path[-1].key
        if kind == "kernel":
            return np.float32(rng.normal(size=x.shape) * (2 / np.prod(x.shape[:-1])) ** 0.5)
        if kind in ("scale", "var"):
            return np.float32(rng.uniform(0.5, 1.5, x.shape))
        return np.float32(rng.normal(size=x.shape) * 0.1)

    return model, Variables(*(jax.tree_util.tree_map_with_path(draw, tree) for tree in shapes))


def run(name, variables, shape, images):
    """Return the output of every layer of a network's parts, [examples, ...]."""
    seen = [("input", images)]
    for layer, part in certificates.decompose(name, variables, shape):
        seen.append((layer, part.apply(seen[-1][1])))
    return dict(seen)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_compose_to_the_network_and_bound_its_slopes(family):
    name, options, shape = FAMILIES[family]
    model, variables = network(name, shape, **options)
    rng = np.random.default_rng(1)
    x = jnp.float32(rng.normal(size=(6, *shape)))
    far, near = (np.float32(x + size * rng.normal(size=x.shape)) for size in (3.0, 0.1))
    images = jnp.concatenate([x, jnp.asarray(far), jnp.asarray(near)])
    outputs, _ = jax.jit(lambda v, x: model.apply(v, {"image": x}, train=False))(variables, images)
    outputs.features.pop("last_map", None)  # a part of the last stage or of what follows it
    seen = jax.jit(lambda x: run(name, variables, shape, x))(images)
    assert set(seen) == {"input", *outputs.features, "logits"}
    for layer, values in (*outputs.features.items(), ("logits", outputs.logits)):
        scale = np.abs(values).max()
        np.testing.assert_allclose(seen[layer], values, rtol=1e-3, atol=1e-4 * scale, err_msg=layer)
    stages = certificates.layer_constants(name, variables, shape)
    assert {stage.name for stage in stages} == set(seen)
    assert len(stages) == len(seen)
    flat = {layer: np.float64(values).reshape(3, 6, -1) for layer, values in seen.items()}
    moved = {k: np.linalg.norm(v[1:] - v[0], axis=2).ravel() for k, v in flat.items()}
    slack = {k: 1e-5 * np.abs(v).max() * v.shape[-1] ** 0.5 for k, v in flat.items()}
    tails = certificates.downstream_constants(stages)
    for number, (stage, tail) in enumerate(zip(stages, tails, strict=True)):
        own = moved[stage.name]
        assert np.all(moved["logits"] <= tail * own + slack["logits"]), stage.name
        if number:
            most = stage.constant * moved[stages[number - 1].name]
            assert np.all(own <= most + slack[stage.name]), stage.name
    assert tails[-1] == 1
    products = np.cumprod([stage.constant for stage in stages[:0:-1]])[::-1]
    assert np.all(tails[:-1] <= products * (1 + 1e-9))


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_network_has_parts_named_by_its_features(name):
    shape = (8, 8, 3)
    model = models.build(name, num_classes=3)
    batch = {"image": jnp.zeros((1, *shape))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    outputs, _ = jax.eval_shape(lambda v: model.apply(v, batch, train=False), shapes)
    outputs.features.pop("last_map", None)
    want = {k: x.shape[1:] for k, x in {**outputs.features, "logits": outputs.logits}.items()}
    ones = jax.tree.map(lambda x: np.broadcast_to(np.float32(1), x.shape), shapes)
    sizes, size = {}, shape
    for layer, part in certificates.decompose(name, ones, shape):
        sizes[layer] = size = maps.out_shape(part, size)
    assert sizes == want


def test_networks_without_constants_are_refused():
    for name in filter(OTHERS.fullmatch, models.names()):
        with pytest.raises(UserError, match=f"no Lipschitz constants .* of a {name}; known are"):
            certificates.decompose(name, Variables({}, {}), (8, 8, 3))


def matrix_of(part, shape):
    """Return the matrix of an affine map without its offset, column by column."""
    count = int(np.prod(shape))
    basis = jnp.eye(count).reshape(count, *shape)
    columns = np.float64(part.apply(basis)) - np.float64(part.apply(jnp.zeros((1, *shape))))
    return columns.reshape(count, -1).T


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("window", "size"), [(1, (4, 3)), (3, (5, 4)), (3, (1, 2)), (7, (4, 5))])
def test_norms_of_convolutions_against_svd(window, size, groups, stride):
    rng = np.random.default_rng(window)
    kernel = rng.normal(size=(window, window, 4 // groups, 8))
    part = layers.convolution(Variables({"conv": {"kernel": kernel}}, {}), "conv", stride=stride)
    truth = np.linalg.norm(matrix_of(part, (*size, 4)), 2)  # float32 entries
    settings = {"stride": stride, "groups": groups}
    assert bounds.convolution_norm_exact(kernel, size, **settings) == pytest.approx(truth, rel=1e-5)
    upper = bounds.convolution_bound(kernel, size, **settings)
    assert truth * (1 - 1e-6) <= upper <= truth * (1 + 1e-5 if window == 1 else 4.0)
    assert part.constant((*size, 4)) == pytest.approx(truth, rel=1e-5)


def test_a_large_image_is_nearly_periodic():
    kernel = np.random.default_rng(3).normal(size=(3, 3, 2, 3))
    exact = bounds.convolution_norm_exact(kernel, (14, 14))
    assert exact <= bounds.convolution_bound(kernel, (14, 14)) <= 1.03 * exact


@pytest.mark.parametrize("limits", [(0, 1e12), (0, 0)])
def test_large_layers_have_upper_bounds(monkeypatch, limits):
    """The bounds come from frequencies and from power iteration."""
    for name, value in zip(("EXACT", "WORK"), limits, strict=True):
        monkeypatch.setattr(layers, name, value)
    kernel = np.random.default_rng(4).normal(size=(3, 3, 3, 4))
    part = layers.convolution(Variables({"conv": {"kernel": kernel}}, {}), "conv", stride=2)
    truth = np.linalg.norm(matrix_of(part, (6, 6, 3)), 2)
    assert truth <= part.constant((6, 6, 3)) <= 1.2 * truth


def test_pools_and_batch_norms():
    average = layers.average_pool(3, 2)
    exact = np.linalg.norm(matrix_of(average, (5, 4, 2)), 2)
    assert average.constant((5, 4, 2)) == pytest.approx(exact, rel=1e-5)
    pool_norm = np.linalg.norm(matrix_of(maps.GLOBAL_AVERAGE, (5, 4, 2)), 2)
    assert maps.GLOBAL_AVERAGE.constant((5, 4, 2)) == pytest.approx(pool_norm, rel=1e-5)
    # a single bright pixel in four overlapping windows attains the constant of the max-pool
    spot = jnp.zeros((1, 5, 5, 1)).at[0, 1, 1].set(1.0)
    pool = maps.max_pool(3, 2)
    apart = pool.apply(spot) - pool.apply(jnp.zeros_like(spot))
    assert float(jnp.linalg.norm(apart)) == pytest.approx(pool.constant((5, 5, 1)))
    rng = np.random.default_rng(5)
    affine = {k: np.float32(rng.uniform(0.5, 2, 3)) for k in ("scale", "bias")}
    moments = {k: np.float32(rng.uniform(0.5, 2, 3)) for k in ("mean", "var")}
    at = Variables(
        {"bn": affine, "conv": {"kernel": rng.normal(size=(3, 3, 2, 3))}}, {"bn": moments}
    )
    norm = layers.batch_norm(at, "bn")
    assert norm.constant((2, 2, 3)) == pytest.approx(np.linalg.norm(matrix_of(norm, (2, 2, 3)), 2))
    folded = layers.convolution(at, "conv", "bn")
    both = maps.compose(layers.convolution(at, "conv"), norm)
    np.testing.assert_allclose(matrix_of(folded, (3, 3, 2)), matrix_of(both, (3, 3, 2)), atol=1e-5)
    assert folded.constant((3, 3, 2)) <= both.constant((3, 3, 2))


def test_rules_of_sums_and_joins():
    three, four = (maps.Map(lambda x, k=k: k * x, lambda shape, k=k: k) for k in (3.0, 4.0))
    for joined, constant in (
        (maps.compose(three, four), 12.0),
        (maps.add(three, four), 7.0),
        (maps.concat(three, four), 5.0),
        (maps.split_channels(three, four), 4.0),
        (maps.HALVE, 1.0),
    ):
        assert joined.constant((2, 2, 2)) == constant
        if joined is not maps.HALVE:
            truth = np.linalg.norm(matrix_of(joined, (2, 2, 2)), 2)
            assert truth == pytest.approx(constant, rel=1e-6)


def test_text_networks_have_no_certificate():
    with pytest.raises(UserError, match="layers of a bert"):
        certificates.layer_constants("bert", Variables({}, {}), (8,))
    with pytest.raises(UserError, match="variables of a resnet8 lack the layer 'conv1'"):
        certificates.layer_constants("resnet8", Variables({"fc": {}}, {}), (8, 8, 1))
