"""What terms read besides a network's layers: parameters, and the logits of a second view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError

NETWORK = models.build("cnn", num_classes=3, widths=(4, 5))
RNG = np.random.default_rng(0)
BATCH = {
    name: jnp.asarray(RNG.normal(size=(4, 8, 8, 1)), jnp.float32) for name in ("image", "view")
}
VARIABLES = jax.jit(NETWORK.init)(jax.random.key(0), BATCH)


def test_a_parameter_is_a_feature_and_the_last_of_a_pattern_counts():
    paths = {"scale": "bn*/scale", "kernel": "fc/kernel"}
    model = models.with_parameters(NETWORK, paths)

    def total(variables):
        features = model.apply(variables, BATCH, train=False)[0].features
        return jnp.sum(features["kernel"]) + features["scale"].shape[0]

    value, grads = jax.value_and_grad(total, allow_int=True)(VARIABLES)
    assert value == pytest.approx(float(jnp.sum(VARIABLES.params["fc"]["kernel"])) + 5, abs=1e-5)
    assert np.all(np.asarray(grads.params["fc"]["kernel"]) == 1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("head/kernel", r"no parameter 'head/kernel'; at 'head' there are .*fc"),
        ("fc/kernel/x", "no parameter 'fc/kernel/x'; the path ends before 'x'"),
        ("fc", "'fc' is no parameter, but holds (bias, kernel|kernel, bias); name one of them"),
    ],
)
def test_no_such_parameter(path, message):
    model = models.with_parameters(NETWORK, {"kernel": path})
    with pytest.raises(UserError, match=message):
        model.apply(VARIABLES, BATCH, train=False)


@pytest.mark.parametrize("train", [True, False])
def test_the_second_view_goes_through_the_same_network(train):
    model = models.with_second_view(NETWORK, name="again")
    outputs, stats = model.apply(VARIABLES, BATCH, train=train)
    first, after = NETWORK.apply(VARIABLES, BATCH, train=train)
    second = {**BATCH, "image": BATCH["view"]}
    expected, after = NETWORK.apply(VARIABLES._replace(stats=after), second, train=train)
    assert np.array_equal(outputs.logits, first.logits)
    assert np.array_equal(outputs.features["again"], expected.logits)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, after))


def test_without_a_second_view_the_logits_stand_for_it():
    model = models.with_second_view(NETWORK, name="again")
    outputs, _ = model.apply(VARIABLES, {"image": BATCH["image"]}, train=False)
    assert np.array_equal(outputs.features["again"], outputs.logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("stage1",), "widths": ()}, "layers has 1 names and widths 0 numbers"),
        ({"layers": ("stage1",), "widths": (0,)}, "an entry of widths"),
    ],
)
def test_connectors_refuse(options, message):
    with pytest.raises(UserError, match=message):
        models.connector_adapter(**options)
