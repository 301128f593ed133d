"""Feature losses against golden values and plain numpy in float64."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses
from kdjax.errors import UserError
from tests.losses import references
from tests.losses.references import close_features as close

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "feature.npz")
MAPS = ["feat_b4_c6_h8", "feat_b2_c4_h1"]
ND = ["nd_b8_d64", "nd_small_student", "nd_zero_student_rows", "nd_tie"]
# name -> shapes of student and teacher, and the other arguments
CASES = {
    "feature_mse": ((3, 2, 2), (3, 2, 2)),
    "attention_transfer": ((2, 3, 2, 2), (2, 3, 2, 4)),
    "hierarchical_context": ((2, 5, 5, 2), (2, 5, 5, 2)),
    "norm_direction": ((4, 5), (4, 5)),
    "class_mean_cosine": ((4, 5),),
}


def arrays(name, seed=0):
    rng = np.random.default_rng(seed)
    features = tuple(jnp.array(rng.normal(size=shape), jnp.float32) for shape in CASES[name])
    means = jnp.array(rng.normal(size=(3, 5)), jnp.float32), jnp.array([0, 2, 1, 2], jnp.int32)
    return features, means if name in ("norm_direction", "class_mean_cosine") else ()


def nhwc(case, key):
    return jnp.asarray(np.moveaxis(GOLDEN[f"{case}/{key}"], 1, -1))


class TestGolden:
    @pytest.mark.parametrize("case", MAPS)
    @pytest.mark.parametrize(("name", "stem"), [
        ("feature_mse", ""),
        ("attention_transfer", "AT_p2_repdistiller/f64/"),
        ("hierarchical_context", "ReviewKD_hcl_mdistiller/f64/"),
    ])  # fmt: skip
    def test_maps(self, name, stem, case):
        s, t = nhwc(case, "in/s_feat"), nhwc(case, "in/t_feat")
        function = getattr(losses, name)
        value, grad = jax.jit(jax.value_and_grad(lambda s: jnp.mean(function(s, t))))(s)
        close(value, GOLDEN[f"{case}/{stem}value"])
        close(grad, nhwc(case, f"{stem}grad_s"))

    @pytest.mark.parametrize("weight", [1, 2])
    @pytest.mark.parametrize("case", ND)
    def test_norm_direction(self, case, weight):
        s, t, means, labels = (
            jnp.asarray(GOLDEN[f"{case}/in/{k}"]) for k in ("s_feat", "t_feat", "centers", "labels")
        )

        def loss(s):
            return weight * jnp.mean(losses.norm_direction(s, t, means, labels))

        for function in (jax.value_and_grad(loss), jax.jit(jax.value_and_grad(loss))):
            value, grad = function(s)
            close(value, GOLDEN[f"{case}/ND_w{weight}/f64/value"])
            close(grad, GOLDEN[f"{case}/ND_w{weight}/f64/grad_s"])


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_match_the_definition(name):
    features, rest = arrays(name)
    function = getattr(losses, name)
    if name == "feature_mse":
        plain = lambda s, t: np.mean((s - t) ** 2, axis=(1, 2))  # noqa: E731
    else:
        plain = lambda *f: getattr(references, name)(*f, *references.float64(*rest))  # noqa: E731
    close(function(*features, *rest), plain(*references.float64(*features)))
    positions = tuple(range(len(features)))
    grads = jax.jit(jax.grad(lambda *f: jnp.sum(function(*f, *rest)), argnums=positions))(*features)
    for position, grad in enumerate(grads):
        close(grad, references.central(plain, references.float64(*features), position))
    check_grads(
        jax.jit(lambda *f: function(*f, *rest)), features, order=1,
        modes=["fwd", "rev"], atol=0.02, rtol=0.02,  # float32 differences
    )  # fmt: skip


class TestNormDirection:
    def test_gradient_lengthens_a_short_feature_and_only_rotates_a_long_one(self):
        means, label = jnp.array([[0.0, 2.0]]), jnp.array(0)
        grad = jax.grad(losses.norm_direction)
        teacher = jnp.array([6.0, 8.0])
        close(grad(jnp.array([1.0, 0.0]), teacher, means, label), [0.0, -0.1])  # -e / ||f_t||
        long = jnp.array([30.0, 40.0])
        assert abs(float(grad(long, teacher, means, label) @ long)) < 1e-6
        own = jax.jit(jax.grad(losses.class_mean_cosine))(long, means, label)
        close(grad(long, teacher, means, label), own)
        assert np.all(jax.jit(jax.grad(losses.norm_direction, 1))(long, teacher, means, label) == 0)

    def test_a_tie_takes_the_student_branch(self):
        f, means = jnp.array([[3.0, 4.0]]), jnp.array([[1.0, 0.0]])
        for tied in (f, f[:, ::-1], -f):
            grad = jax.grad(lambda s, t=tied: losses.norm_direction(s, t, means, jnp.array([0]))[0])
            close(grad(f), [[-0.128, 0.096]])  # the gradient of -cos, orthogonal to f

    @pytest.mark.parametrize("zero", ["both features", "centre", "student"])
    def test_zero_features_are_finite(self, zero):
        f, means, label = jnp.array([1.0, 2.0]), jnp.array([[3.0, 0.0]]), jnp.array(0)
        s = f * (zero == "centre")
        t, means = f * (zero != "both features"), means * (zero != "centre")
        value, grads = jax.jit(jax.value_and_grad(losses.norm_direction, (0, 1)))(
            s, t, means, label
        )
        assert value == 1
        expected = [-1 / np.sqrt(5), 0.0] if zero == "student" else [0.0, 0.0]
        close(grads[0], expected)
        close(grads[1], [0.0, 0.0])
        assert np.all(np.isfinite(jax.jit(jax.grad(losses.norm_direction, 2))(s, t, means, label)))
        value, grad = jax.jit(jax.value_and_grad(losses.class_mean_cosine))(s, means, label)
        assert value == 1
        assert np.all(np.asarray(grad) == 0)

    def test_an_invalid_label_gives_nan(self):
        out = losses.norm_direction(
            jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((4, 2)), jnp.array([-1, 4, 3])
        )
        assert np.isnan(out).tolist() == [True, True, False]


def test_stepwise_norm_gradient_is_along_the_feature():
    f = jnp.array([[3.0, 4.0], [0.0, 0.0], [3e7, 4e7]])
    value, grad = jax.jit(jax.value_and_grad(lambda f: jnp.sum(losses.stepwise_norm(f, step=2.0))))(
        f
    )
    assert value == 12  # 4 each, also for a norm of 5e7, whose rounding is 2
    close(grad, [[-2.4, -3.2], [0.0, 0.0], [-2.4, -3.2]])


def test_attention_is_invariant_to_channel_order_and_scale():
    rng = np.random.default_rng(3)
    s = jnp.array(rng.normal(size=(2, 3, 3, 4)), jnp.float32)
    tiled = jnp.concatenate([3 * s, 3 * s[..., ::-1]], axis=-1)
    close(losses.attention_transfer(s, tiled), [0.0, 0.0])


def test_pyramid_of_a_zero_mean_difference_is_the_full_map_alone():
    # +-1 in a checkerboard: all windows of 2 x 2 pixels average to 0
    board = jnp.array((-1.0) ** np.add.outer(np.arange(8), np.arange(8)))[None, :, :, None]
    close(losses.hierarchical_context(board, jnp.zeros_like(board)), [1 / 1.875])


def pooled(x, cells):
    """torch's adaptive average pooling of [batch, height, width, channel], window by window."""
    spans = [
        [slice(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        for n in x.shape[1:3]
    ]
    return np.stack([np.stack([x[:, a, b].mean((1, 2)) for b in spans[1]], 1) for a in spans[0]], 1)


@pytest.mark.parametrize("shape", [(2, 7, 3, 2), (2, 3, 7, 2), (2, 8, 2, 1), (2, 2, 8, 1)])
def test_pyramid_of_maps_that_are_not_square_goes_by_their_height(shape):
    s, t = np.random.default_rng(1).normal(size=(2, *shape))
    total, weight, weights = ((s - t) ** 2).mean((1, 2, 3)), 1.0, 1.0
    for cells in (4, 2, 1):  # the published loop: levels of at least as many cells as rows are left
        if cells < shape[1]:
            weight, weights = weight / 2, weights + weight / 2
            total += weight * ((pooled(s, cells) - pooled(t, cells)) ** 2).mean((1, 2, 3))
    close(losses.hierarchical_context(jnp.float32(s), jnp.float32(t)), total / weights)


@pytest.mark.usefixtures("without_jaxtyping")
class TestErrors:
    def test_shapes(self):
        with pytest.raises(UserError, match=r"student \(2, 3\) and teacher \(2, 4\)"):
            losses.feature_mse(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
        means, labels = jnp.zeros((5, 3)), jnp.zeros(2, jnp.int32)
        with pytest.raises(UserError, match=r"student \(2, 3\) and teacher \(2, 4\)"):
            losses.norm_direction(jnp.zeros((2, 3)), jnp.zeros((2, 4)), means, labels)
        with pytest.raises(UserError, match=r"class_means: shape \(5, 3\).*\(2, 4\)"):
            losses.norm_direction(jnp.zeros((2, 4)), jnp.zeros((2, 4)), means, labels)
        with pytest.raises(UserError, match=r"labels: shape \(2,\).*\(3, 3\)"):
            losses.class_mean_cosine(jnp.zeros((3, 3)), means, labels)
        with pytest.raises(UserError, match="labels: dtype float32"):
            losses.class_mean_cosine(jnp.zeros((2, 3)), means, jnp.zeros(2))
        with pytest.raises(UserError, match="step: must"):
            losses.stepwise_norm(jnp.zeros(3), step=0.0)

    @pytest.mark.parametrize("function", [losses.attention_transfer, losses.hierarchical_context])
    @pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 4, 4, 3), (2, 2, 2, 3))])
    def test_maps(self, function, shapes):
        with pytest.raises(UserError, match=r"must .*height, width, channel"):
            function(*map(jnp.zeros, shapes))
