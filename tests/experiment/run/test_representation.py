"""Representation learning by dependency: updates, penalty, devices, sweeps, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, models
from kdjax.distill import critics, dependency
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import train as running
from kdjax.models import lipschitz_mlp_bound
from tests.experiment.build.test_critics import CLOSE
from tests.experiment.run.test_dependency import train
from tests.train.test_resume import Killed, ending, interrupted, kill

ROLES = ("encoder_x", "encoder_y", "critic")
RATE, PENALTY = "roles.*.optimizer.learning_rate", "roles.critic.terms.dependency.penalty"
LAYERS = {"own_layer": "embedding", "peer_layer": "embedding"}


def config(critic=None, encoder=None, penalty=10.0, **changes):
    """Return a config of two MLPs, one for each view, with two factors of four values."""

    def player(entry):
        network = {"name": "mlp", "hidden": (12,), "embedding": 6, **(encoder or {})}
        return {"model": network, "input": entry, "terms": {}, "optimizer": {"name": "adamw"}}

    model = {"name": "dependency", "kind": "bilinear", "width": 8, **LAYERS}
    model |= {"metric": "inputs", "bound": "none", "objective": "wpc", **(critic or {})}
    return {
        "num_steps": 3,
        "batch_size": 16,
        "eval_batch_size": 32,
        "devices": 1,
        "log_every": 1,
        "checkpoint_every": 2,
        "tensorboard": False,
        "data": {
            "name": "pairs_synthetic",
            "tiles": 2,
            "characters": 4,
            "tile_size": 4,
            "eval_pairs": 48,
        },
        "roles": {
            "encoder_x": player("image"),
            "encoder_y": player("view"),
            "critic": {
                "between": ROLES[:2],
                "moves": "both",
                "model": model,
                "optimizer": {"name": "adamw"},
                "terms": {"dependency": {"penalty": penalty}},
            },
        },
        "select": {"role": "encoder_x", "metric": "probe_accuracy"},
        **changes,
    }


SPECTRAL = (
    {"kind": "bilinear_spectral", "bound": "ball", "radius": 4.0},
    {"name": "lipschitz_mlp", "kind": "spectral"},
)


def test_encoders_without_terms_may_use_remat(monkeypatch):
    """`remat` applies to encoders that are trained by a critic only."""
    wrapped = []
    monkeypatch.setattr(
        models, "with_remat", lambda model, real=models.with_remat: wrapped.append(1) or real(model)
    )
    settings = config()
    for role in ROLES[:2]:
        settings["roles"][role]["remat"] = True
    build(settings)
    assert len(wrapped) == 2


@pytest.mark.parametrize(
    ("critic", "encoder"),
    [
        ({"objective": "cpc"}, {}),
        ({"objective": "dual", "at": "product", "sides": 2}, {}),
        pytest.param(*SPECTRAL, marks=pytest.mark.long),
    ],
    ids=["cpc", "dual-penalty", "wpc-spectral"],
)
def test_both_encoders_and_the_critic_ascend(critic, encoder):
    settings = config(critic, encoder, penalty=1e-3, **{"data": {**config()["data"], "pool": 16}})
    for role in settings["roles"].values():
        role["optimizer"] = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.0}
    (params, _), state, seen = train(settings, steps=12)
    estimates = [float(metrics["critic/estimate"][0]) for metrics in seen]
    assert estimates[-1] > estimates[0] + 0.005
    for role in ROLES:
        moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), params[role], state.params[role])
        assert all(jax.tree.leaves(moved)), role
    assert ("critic/penalty" in seen[0]) == (critic.get("objective") != "cpc" and not encoder)
    assert not any("accuracy" in name for name in seen[0])


def test_the_penalty_is_of_the_slope_in_both_images():
    """The penalty equals its definition, one pair at a time, and updates the encoders."""
    network = models.build("mlp", num_classes=3, hidden=(5,))
    encoders = [models.as_encoder(network, entry=entry) for entry in ("image", "view")]
    options = critics.DependencyOptions(
        kind="bilinear", objective="wpc", metric="inputs", bound="none", width=4, sides=2, **LAYERS
    )
    critic = critics.dependency(options)
    method = dependency(*encoders, critic)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.normal(size=(5, 2, 2, 1)), jnp.float32),
        "view": jnp.asarray(rng.normal(size=(5, 2, 2, 1)), jnp.float32),
        "label": jnp.zeros((5, 2), jnp.int32),
    }
    key = jax.random.key(3)
    variables = method.init(key, batch)
    params = {role: v.params for role, v in variables.items()}
    stats = {role: v.stats for role, v in variables.items()}
    hparams = {role: {"terms": {}} for role in ROLES[:2]}
    hparams["critic"] = {"terms": {"dependency": {"weight": 1.0, "penalty": 2.0}}}

    def loss(p):
        return method.loss(p, stats, batch, hparams, key)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    scorer = models.pair_critic.build("bilinear", width=4)
    features = [
        encoder.apply(variables[role], batch, train=False)[0].features["embedding"]
        for role, encoder in zip(ROLES, encoders, strict=False)
    ]
    scores, _ = scorer.scores(variables["critic"], *features, train=False)
    objective = losses.predictive_coding(scores)
    penalty = float(aux.metrics["critic/penalty"])
    np.testing.assert_allclose(float(value), -float(objective) + 2.0 * penalty, rtol=1e-5)

    def slope(image, view):
        def f(a, b):
            one = {"image": a[None], "view": b[None]}
            x, y = (
                encoder.apply(variables[role], one, train=False)[0].features["embedding"]
                for role, encoder in zip(ROLES, encoders, strict=False)
            )
            return scorer.pairs(variables["critic"], x, y)[0]

        a, b = jax.grad(f, argnums=(0, 1))(image, view)
        return np.sqrt(float(jnp.sum(a**2) + jnp.sum(b**2)))

    # at the joint points, which are not sampled
    joint = critics.dependency(options._replace(at="joint"))
    _, aux = dependency(*encoders, joint).loss(params, stats, batch, hparams, key)
    slopes = [slope(x, y) for x, y in zip(batch["image"], batch["view"], strict=True)]
    expected = np.mean((np.array(slopes) - 1) ** 2)
    np.testing.assert_allclose(float(aux.metrics["critic/penalty"]), expected, rtol=1e-4)
    for role in ROLES:
        assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads[role])[1:]), role


@pytest.mark.parametrize("kind", ["spectral", "bjorck"])
def test_a_lipschitz_system_has_slopes_of_at_most_one(kind):
    """Encoders and critic have certificates, and a search finds no steeper pair."""
    network = models.build("lipschitz_mlp", num_classes=6, hidden=(12,), kind=kind)
    scorer = models.pair_critic.build(f"bilinear_{kind}", width=8, radius=4.0)
    rng = np.random.default_rng(0)
    points = [jnp.asarray(rng.normal(size=(2000, 4, 4, 1)), jnp.float32) for _ in range(2)]
    step = [jnp.asarray(rng.normal(size=(2000, 4, 4, 1)) * 0.1, jnp.float32) for _ in range(2)]
    keys = jax.random.split(jax.random.key(0), 3)
    own = [network.init(key, {"image": points[0]}) for key in keys[:2]]
    judge = scorer.init(keys[2], jnp.zeros((1, 6)), jnp.zeros((1, 6)))
    for variables in own:
        assert lipschitz_mlp_bound(variables, kind) < 1 + 1e-3

    @jax.jit
    def f(*images):
        x, y = (
            models.lipschitz.layers.project_to_ball(
                network.apply(variables, {"image": image}, train=False)[0].logits, 4.0
            )
            for variables, image in zip(own, images, strict=True)
        )
        return scorer.pairs(judge, x, y)

    moved = f(points[0] + step[0], points[1] + step[1]) - f(*points)
    length = np.sqrt(sum(np.sum(np.square(s), axis=(1, 2, 3)) for s in step))
    assert np.max(np.abs(moved) / length) < 1 + 2e-3


def test_a_member_of_a_sweep_equals_the_single_run():
    table = {"seed": (0, 5), RATE: (0.1, 0.02), PENALTY: (10.0, 2.0)}
    many, single = config(sweep=table, sweep_mode="zip"), config(penalty=2.0, seed=5)
    for settings in (many, single):
        for role in settings[
            "roles"
        ].values():  # Adam would amplify the rounding of small gradients
            role["optimizer"] = {"name": "sgd", "learning_rate": 0.02}
    _, states, many = train(many)
    _, alone, one = train(single)
    for part in ("params", "stats"):
        pairs = zip(
            jax.tree.leaves(getattr(states, part)),
            jax.tree.leaves(getattr(alone, part)),
            strict=True,
        )
        for stacked, own in pairs:
            np.testing.assert_allclose(stacked[1], own[0], rtol=5e-4, atol=5e-5)
    np.testing.assert_allclose(many[0]["critic/loss"][1], one[0]["critic/loss"][0], **CLOSE)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (simulated) devices")
def test_eight_devices_equal_one():
    """Negatives and the penalty's points come from the global batch."""
    results = []
    for devices in (1, 8):
        settings = config(devices=devices)
        for role in settings["roles"].values():
            role["optimizer"] = {"name": "sgd", "learning_rate": 0.05}
        _, state, seen = train(settings, steps=2)
        results.append((state, seen[-1]))
    (one, settings), (eight, same) = results
    for role in ROLES:
        pairs = zip(
            jax.tree.leaves(one.params[role]), jax.tree.leaves(eight.params[role]), strict=True
        )
        for x, y in pairs:
            y = y[0] if np.ndim(y) > np.ndim(x) else y
            np.testing.assert_allclose(y, x, rtol=2e-4, atol=2e-5)
    for name in ("critic/estimate", "critic/penalty", "critic/loss"):
        value = np.ravel(same[name])[0]
        np.testing.assert_allclose(value, np.ravel(settings[name])[0], rtol=2e-4, atol=2e-5)


def test_a_run_is_scored_and_resumes_bit_for_bit(tmp_path):
    run = build(config(eval_every=2))
    running.train(run, tmp_path / "whole", lambda _: None)
    with pytest.raises(Killed):
        running.train(interrupted(run, 2, kill), tmp_path / "cut", lambda _: None)
    lines = []
    running.train(run, tmp_path / "cut", lines.append)
    assert any("resumed from step" in line for line in lines)
    assert ending(run, tmp_path / "cut") == ending(run, tmp_path / "whole")
    outcome = running.evaluate(run, tmp_path / "whole", lines.append)[0]
    results = outcome.members[0].results
    for split in ("validation", "test"):
        scores = results[split]
        factors = [scores[f"encoder_x/probe_accuracy_{i}"] for i in (0, 1)]
        np.testing.assert_allclose(scores["encoder_x/probe_accuracy"], np.mean(factors))
        assert 0.2 < scores["encoder_x/probe_accuracy"] <= 1
        assert scores["critic/estimate"] <= scores["critic/ceiling"] == pytest.approx(np.log(16))
        assert scores["critic/mutual_information"] == pytest.approx(2 * np.log(4))


def changed(role, **changes):
    settings = config()
    settings["roles"][role] = {**settings["roles"][role], **changes}
    return settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (config({"kind": "bilinear_bjorck"}), "bound is 'none', which is not 1-Lipschitz"),
        (
            config({"kind": "bilinear_bjorck", "bound": "ball"}),
            r"encoder_x \(mlp\) is not Lipschitz; set .*lipschitz_mlp",
        ),
        (config({"metric": "features"}), "grows without limit"),
        (config({"metric": "pixels"}), "metric is 'pixels'; it must be one of features, inputs"),
        (config(penalty=-1.0), "penalty is -1; it must be > 0"),
        (config(penalty=0.0), "penalty is 0; it must be > 0"),
        (config(encoder={"embedding": 0}), "roles.encoder_x.model: embedding is 0"),
        (config(encoder={"embedding": None}), "must be the width of the encoder's representation"),
        (changed("critic", moves="first"), "no role has terms, so nothing would be trained"),
        (changed("critic", moves="all"), "roles.critic.moves is 'all'; it must be first or both"),
        (changed("encoder_x", moves="both"), "encoder_x is no critic"),
        (changed("encoder_y", input="second"), "input is 'second', but the batch has"),
        (config(select={"metric": "accuracy"}), "select.metric is 'accuracy'; there are probe_acc"),
        (config(data={**config()["data"], "augment": "crop"}), "pairs are not augmented"),
        (config(data={**config()["data"], "limit": 9}), "data.limit is set, but pairs_synthetic"),
        (
            config(encoder={"name": "lipschitz_mlp", "kind": "plain"}),
            "kind is 'plain'; there are spectral, bjorck",
        ),
    ],
)
def test_errors_are_one_line(settings, words):
    with pytest.raises(UserError, match=words) as caught:
        build(settings)
    assert "\n" not in str(caught.value)


def test_keys_and_inputs_of_pairs_need_pairs():
    digits = {
        "data": {"name": "digits", "tiles": 4},
        "roles": {"student": {"model": {"name": "mlp"}, "terms": {"ce": {}}}},
    }
    with pytest.raises(UserError, match=r"data\.tiles is set, but only omniglot.* has it"):
        build(digits)
    digits["data"] = {"name": "digits"}
    digits["roles"]["student"]["input"] = "view"
    with pytest.raises(UserError, match="input is 'view'; data other than pairs has only image"):
        build(digits)


def test_a_batch_of_one_has_no_negatives():
    with pytest.raises(UserError, match="a batch of one pair has no negatives"):
        train(config({"objective": "cpc"}, batch_size=1), steps=1)
