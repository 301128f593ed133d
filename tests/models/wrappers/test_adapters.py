"""Adapters against references in float64 NumPy, and their composition with the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kdjax import models
from kdjax.errors import UserError
from kdjax.models.layers.layers import global_average
from kdjax.models.wrappers.adapters import nearest
from kdjax.types import Outputs

RNG = np.random.default_rng(0)
IMAGES = {"image": RNG.normal(size=(5, 8, 6, 2)).astype(np.float32)}
EPS = 1e-5


class Levels(nn.Module):
    """Returns known features: slices of the image, one of them normalised."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        features = {"low": x, "high": x[:, ::2, ::2, :1], "pooled": global_average(x)}
        return Outputs(nn.Dense(3, name="fc")(features["pooled"]), features)


NETWORK = models.from_linen(Levels())


def started(model, batch=IMAGES):
    """Return random variables, also in place of a new batch norm's 0 and 1."""
    variables = jax.jit(model.init)(jax.random.key(1), batch)
    rng = np.random.default_rng(1)
    shift = lambda x: x + rng.uniform(0.1, 0.5, x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(shift, variables)


def normalised(x, params, stats=None):
    """Return batch norm by the batch (stats None) or by running statistics, in float64."""
    x, axes = np.float64(x), tuple(range(np.ndim(x) - 1))
    mean = x.mean(axes) if stats is None else np.float64(stats["mean"])
    variance = x.var(axes) if stats is None else np.float64(stats["var"])
    return (x - mean) / np.sqrt(variance + EPS) * np.float64(params["scale"]) + params["bias"]


def tree(variables, name):
    own = variables.params["adapters"][name], variables.stats["adapters"][name]
    return jax.tree.map(np.asarray, own)


def close(actual, right):
    np.testing.assert_allclose(actual, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layer", ["pooled", "high"])
def test_linear_is_a_linear_map_of_the_channels(layer):
    model = models.with_adapters(NETWORK, {"wide": models.linear_adapter(layer=layer, width=7)})
    variables = started(model)
    outputs, _ = jax.jit(lambda v, b: model.apply(v, b, train=False))(variables, IMAGES)
    params, _ = tree(variables, "wide")
    x = np.float64(outputs.features[layer])
    close(outputs.features["wide"], x @ params["linear"]["kernel"] + params["linear"]["bias"])


class TestNormDirection:
    def model(self, dropout):
        adapter = models.norm_direction_adapter(layer="pooled", width=7, dropout=dropout)
        return models.with_adapters(NETWORK, {"nd": adapter})

    def test_norm_direction_is_batch_norm_and_a_linear_map(self):
        model = self.model(0.0)
        variables = started(model)
        apply = jax.jit(model.apply, static_argnames="train")
        params, stats = tree(variables, "nd")
        for train in (True, False):
            outputs, moved = apply(variables, IMAGES, train=train)
            x = np.asarray(outputs.features["pooled"])
            y = normalised(x, params["bn"], None if train else stats["batch_stats"]["bn"])
            right = y @ params["linear"]["kernel"] + params["linear"]["bias"]
            close(outputs.features["nd"], right)
            running = jax.tree.map(np.asarray, moved["adapters"]["nd"]["batch_stats"]["bn"])
            old = stats["batch_stats"]["bn"]
            mean = 0.9 * old["mean"] + 0.1 * x.mean(0) if train else old["mean"]
            close(running["mean"], mean)

    def test_dropout_zeroes_half_of_the_channels_and_doubles_the_rest(self):
        model = self.model(0.5)
        variables = started(model)
        params, _ = tree(variables, "nd")
        eye = {"kernel": jnp.eye(2, 7), "bias": jnp.zeros(7)}
        variables.params["adapters"]["nd"]["linear"] = eye
        apply = jax.jit(lambda key: model.apply(variables, IMAGES, train=True, key=key)[0])
        running = []
        for seed in range(40):
            actual = np.asarray(apply(jax.random.key(seed)).features["nd"])[:, :2]
            x = apply(jax.random.key(seed)).features["pooled"]
            y = normalised(x, params["bn"])
            close(actual, np.where(actual == 0, 0, 2 * y))
            running.append(actual != 0)
        assert 0.4 < np.mean(running) < 0.6  # 400 draws: 4 standard deviations
        assert not np.array_equal(running[0], running[1])


def resized(x, size):
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


def convolved(x, kernel):
    """Return a zero-padded 3x3 or 1x1 convolution as a sum over taps, in float64."""
    k = kernel.shape[0] // 2
    x = np.pad(np.float64(x), ((0, 0), (k, k), (k, k), (0, 0)))
    height, width = x.shape[1] - 2 * k, x.shape[2] - 2 * k
    taps = [(i, j) for i in range(2 * k + 1) for j in range(2 * k + 1)]
    return sum(x[:, i : i + height, j : j + width] @ np.float64(kernel[i, j]) for i, j in taps)


def fused(levels, sizes, params):
    """Return ReviewKD's levels by the published formula, shallow to deep."""
    deeper, actual = None, []
    for level, (x, size) in reversed(list(enumerate(zip(levels, sizes, strict=True), start=1))):
        reduce, expand = (params[f"{kind}{level}"]["kernel"] for kind in ("reduce", "expand"))
        x = normalised(convolved(x, reduce), params[f"reduce{level}_bn"])
        if deeper is not None:
            deeper = resized(deeper, x.shape[1:3])
            gate = params[f"gate{level}"]
            z = convolved(np.concatenate([x, deeper], -1), gate["kernel"]) + gate["bias"]
            z = 1 / (1 + np.exp(-z))
            x = x * z[..., :1] + deeper * z[..., 1:]
        x = deeper = resized(x, size)
        actual.insert(0, normalised(convolved(x, expand), params[f"expand{level}_bn"]))
    return actual


class TestFusion:
    SIZES = ((16, 12), (5, 7), (1, 1))

    @pytest.fixture(scope="class")
    def run(self):
        adapter = models.fusion_adapter(
            layers=("low", "high", "pooled"), widths=(3, 4, 5), sizes=self.SIZES, mid=6
        )
        model = models.with_adapters(NETWORK, {"review": adapter})
        variables = started(model)
        outputs, stats = jax.jit(lambda v, b: model.apply(v, b, train=True))(variables, IMAGES)
        return variables, outputs.features, stats

    def test_fusion_matches_the_published_formula(self, run):
        variables, features, _ = run
        params, _ = tree(variables, "review")
        pooled = np.asarray(features["pooled"])[:, None, None]
        levels = [np.asarray(features["low"]), np.asarray(features["high"]), pooled]
        one, two, three = fused(levels, self.SIZES, params)
        close(features["review1"], one)
        close(features["review2"], two)
        close(features["review3"], three[:, 0, 0])

    def test_fusion_updates_its_statistics(self, run):
        variables, _, stats = run
        _, old = tree(variables, "review")
        for x, y in zip(jax.tree.leaves(old), jax.tree.leaves(stats["adapters"]), strict=True):
            assert not np.array_equal(x, y)

    @pytest.mark.parametrize(("deepest", "mid"), [(8, 8), (960, 512)])
    def test_mid_width_is_that_of_the_deepest_layer(self, deepest, mid):
        model = models.build("cnn", num_classes=3, widths=(4, deepest))
        options = {"layers": ("stage1", "pooled"), "widths": (4, 4), "sizes": (4, 1)}
        model = models.with_adapters(model, {"review": models.fusion_adapter(**options)})
        shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
        assert shapes.params["adapters"]["review"]["reduce1"]["kernel"].shape == (1, 1, 4, mid)


def test_nearest_uses_pixel_floor_of_i_m_over_n():
    x = jnp.arange(3.0).reshape(1, 3, 1, 1)
    assert nearest(x, (6, 1)).ravel().tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest(x, (5, 1)).ravel().tolist() == [0, 0, 1, 1, 2]
    assert nearest(x, (2, 2))[0, :, :, 0].tolist() == [[0, 0], [1, 1]]


TABLE = {
    "wide": models.linear_adapter(layer="pooled", width=7),
    "nd": models.norm_direction_adapter(layer="pooled", width=6),
}


class TestComposition:
    def test_adapters_do_not_change_the_network(self):
        model, key = models.with_adapters(NETWORK, TABLE), jax.random.key(3)
        both, alone = (jax.jit(m.init)(key, IMAGES) for m in (model, NETWORK))
        assert set(both.params) == set(both.stats) == {"network", "adapters"}
        assert set(both.params["adapters"]) == set(TABLE)
        same = jax.tree.map(np.array_equal, models.strip_wrappers(both), alone)
        assert jax.tree.all(same)
        assert jax.tree.structure(models.strip_wrappers(both)) == jax.tree.structure(alone)
        a, b = (
            m.apply(v, IMAGES, train=True, key=key) for m, v in ((model, both), (NETWORK, alone))
        )
        np.testing.assert_array_equal(a[0].logits, b[0].logits)
        assert jax.tree.all(jax.tree.map(np.array_equal, a[1]["network"], b[1]))
        assert model.apply(both, IMAGES, train=False)[1] is both.stats

    def test_initialisation_does_not_depend_on_other_adapters(self):
        one = {"wide": TABLE["wide"]}
        a, b = (
            jax.jit(models.with_adapters(NETWORK, t).init)(jax.random.key(3), IMAGES)
            for t in (one, TABLE)
        )
        own = lambda v: v.params["adapters"]["wide"]["linear"]["kernel"]  # noqa: E731
        np.testing.assert_array_equal(own(a), own(b))

    def test_gradients_reach_the_adapter_and_the_network(self):
        model = models.with_adapters(NETWORK, TABLE)
        variables = started(model)

        def loss(params):
            apply = model.apply(variables._replace(params=params), IMAGES, train=False)
            return jnp.sum(apply[0].features["nd"] ** 2)

        grads = jax.jit(jax.grad(loss))(variables.params)
        assert np.abs(grads["adapters"]["nd"]["linear"]["kernel"]).max() > 0
        assert np.abs(grads["network"]["bn"]["scale"]).max() > 0
        assert not np.abs(grads["adapters"]["wide"]["linear"]["kernel"]).max()


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (simulated) devices")
def test_statistics_are_over_all_devices():
    adapters = {
        "nd": lambda axis: models.norm_direction_adapter(
            layer="pooled", width=6, dropout=0.0, axis_name=axis
        ),
        "review": lambda axis: models.fusion_adapter(
            layers=("high",), widths=(3,), sizes=(4,), axis_name=axis
        ),
    }
    frozen = NETWORK._replace(apply=lambda v, b, **options: NETWORK.apply(v, b, train=False))
    one, many = (
        models.with_adapters(frozen, {name: make(axis) for name, make in adapters.items()})
        for axis in (None, "data")
    )
    batch = {"image": RNG.normal(size=(16, 8, 6, 2)).astype(np.float32)}
    variables = started(one, batch)
    right, stats = jax.jit(lambda v, b: one.apply(v, b, train=True))(variables, batch)
    parts = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)
    step = lambda v, b: many.apply(v, b, train=True)  # noqa: E731
    actual, moved = jax.pmap(step, axis_name="data", in_axes=(None, 0))(variables, parts)
    for name in ("nd", "review1"):
        joined = np.asarray(actual.features[name]).reshape(right.features[name].shape)
        np.testing.assert_allclose(joined, right.features[name], rtol=1e-4, atol=1e-4)
    for x, y in zip(
        jax.tree.leaves(moved["adapters"]), jax.tree.leaves(stats["adapters"]), strict=True
    ):
        for device in np.asarray(x):
            np.testing.assert_allclose(device, y, rtol=1e-4, atol=1e-5)


def levels(**changes):
    options = {"layers": ("low", "pooled"), "widths": (3, 4), "sizes": (8, 1)}
    return models.fusion_adapter(**{**options, **changes})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: models.linear_adapter(layer="pooled", width=0), "width is 0"),
        (lambda: models.norm_direction_adapter(layer="pooled", width=-1), "width is -1"),
        (
            lambda: models.norm_direction_adapter(layer="pooled", width=1, dropout=1.0),
            "dropout is 1.0; it must be >= 0 and < 1",
        ),
        (lambda: levels(widths=(3,)), "layers has 2 names, widths 1 numbers and sizes 2"),
        (lambda: levels(sizes=(8, 0)), "an entry of sizes is 0"),
        (lambda: levels(sizes=(8, (1, 1, 1))), "each must be a number or .height, width"),
        (lambda: levels(widths=(3, 4.0)), r"an entry of widths is 4\.0"),
        (lambda: levels(mid=-2), "mid is -2"),
    ],
)
def test_invalid_numbers_are_errors(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"wide": models.linear_adapter(layer="stage9", width=3)},
            "adapters.wide: no layer 'stage9'; the network has high, low, pooled",
        ),
        (
            {"pooled": models.linear_adapter(layer="low", width=3)},
            "adapters.pooled: 'pooled' is a layer already",
        ),
        (
            {"nd": models.norm_direction_adapter(layer="low", width=3)},
            r"adapters.nd: its layer is a map \(8, 6, 2\); choose a vector",
        ),
    ],
)
def test_invalid_layers_are_errors(table, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(models.with_adapters(NETWORK, table).init, jax.random.key(0), IMAGES)
