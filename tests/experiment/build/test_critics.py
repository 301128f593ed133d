"""Critics from a config: sweeps, checkpoints, an earlier variant's teacher, errors."""

import json
import pathlib

import jax
import numpy as np
import pytest

from kdjax.distill import CriticRole, critics, terms
from kdjax.errors import UserError
from kdjax.evaluation import selection
from kdjax.experiment.build import critics as experiment_critics
from kdjax.experiment.build.build import build
from kdjax.experiment.commands import overrides
from kdjax.experiment.config import resolve as configs
from kdjax.experiment.run import train as running
from kdjax.experiment.run.loss_formula import loss_formula
from kdjax.experiment.run.member_groups import MemberGroup, checkpoint_dir, member_groups
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.experiment.run.results import load_group_state
from kdjax.report.results import MemberResult
from kdjax.train import checkpoint

RATE, TEMPERATURE = "roles.*.optimizer.learning_rate", "roles.crd.terms.contrast.temperature"
# a stacked member is a batched product: the same sums in another order
CLOSE = {"rtol": 5e-5, "atol": 5e-6}


def crd(**changes):
    return {
        "between": ("student", "teacher"),
        "model": {"name": "contrast", "width": 4, "num_negatives": 5},
        "terms": {"contrast": {"weight": 0.8, "temperature": 0.3}},
        **changes,
    }


def config(critic=None, **changes):
    return {
        "num_steps": 4,
        "batch_size": 16,
        "eval_batch_size": 64,
        "devices": 1,
        "log_every": 2,
        "checkpoint_every": 2,
        "tensorboard": False,
        "data": {"name": "synthetic", "num_classes": 4, "shape": (6, 6, 1), "limit": 160},
        "roles": {
            "teacher": {"model": {"name": "mlp", "hidden": (12,)}, "terms": {"ce": {}}},
            "student": {"model": {"name": "mlp", "hidden": (8,)}, "terms": {"ce": {}}},
            "crd": crd() if critic is None else critic,
        },
        **changes,
    }


def train(run, steps=3):
    members = tuple(range(len(run.variants[0].members)))
    program, state = make_program(run, MemberGroup(run.variants[0], members), {})
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
    return jax.device_get(state._replace(key=jax.random.key_data(state.key))), metrics


def test_a_member_of_a_sweep_equals_the_single_run():
    table = {"seed": (0, 5), RATE: (0.1, 0.02), TEMPERATURE: (0.3, 0.7)}
    states, metrics = train(build(config(sweep=table, sweep_mode="zip")))
    settings = config(crd(terms={"contrast": {"weight": 0.8, "temperature": 0.7}}), seed=5)
    for role in settings["roles"].values():
        role["optimizer"] = {"learning_rate": 0.02}
    alone, expected = train(build(settings))
    for part in ("params", "stats", "opt", "hparams"):
        pairs = zip(
            jax.tree.leaves(getattr(states, part)),
            jax.tree.leaves(getattr(alone, part)),
            strict=True,
        )
        for many, one in pairs:
            np.testing.assert_allclose(many[1], one[0], **CLOSE)
    assert np.isclose(states.hparams["crd"]["terms"]["contrast"]["temperature"][1], 0.7)
    np.testing.assert_allclose(metrics["crd/loss"][1], expected["crd/loss"][0], **CLOSE)


class Killed(BaseException):
    """Simulates a kill; no code may catch it."""


def test_stop_and_resume_equals_an_uninterrupted_run(tmp_path):
    run, folders = build(config()), [tmp_path / "whole", tmp_path / "parts"]

    def killed(step, seed):
        for number, value in enumerate(run.source.train(step, seed), start=step):
            if number == 3:
                raise Killed
            yield value

    running.train(run, folders[0], print)
    with pytest.raises(Killed):
        running.train(
            run._replace(data=run.data._replace(source=run.source._replace(train=killed))),
            folders[1],
            print,
        )
    lines = []
    running.train(run, folders[1], lines.append)
    assert lines == ["default: resumed from step 2"]
    outcomes = []
    for folder in folders:
        part = member_groups(run, run.variants[0], folder)[0]
        state = load_group_state(run, part, {}, print)
        assert state.stats["crd"].started.all()
        assert set(state.params) == {"teacher", "student", "crd"}
        outcomes.append((checkpoint.digest(state), (folder / "metrics.jsonl").read_text()))
    assert outcomes[0] == outcomes[1]
    outcome = json.loads((checkpoint_dir(part) / "done.json").read_text())
    results = outcome["members"][0]["results"]["test"]
    assert "agreement" in results, "two players, the critic apart"
    assert set(outcome["bins"]) == {"teacher", "student"}
    assert not any(name.startswith("crd/") for name in results)


def frozen(**changes):
    """Return a config with the frozen, cached teacher of an earlier variant."""
    settings = config(**changes)
    over = {"teacher": {"terms": {"ce": None}, "from_variant": "alone", "cache": True}}
    return {**settings, "variants": {"alone": {"roles": {"crd": None}}, "crd": {"roles": over}}}


def test_a_cached_teacher_includes_the_critics_layer():
    alone, following = build(frozen()).variants
    assert not alone.critics
    assert set(alone.hparams[0]) == {"teacher", "student"}
    assert following.method(None).trains == ("student", "crd")
    assert following.cached["teacher"][1] == ("pooled",)
    assert list(following.players) == ["teacher", "student"]
    assert following.parameters["crd"] == (12 + 1) * 4 + (8 + 1) * 4


def test_a_critics_term_keeps_its_student_training():
    """FT's paraphraser trains the critic alone, so that the student pauses while only it is on."""
    settings = config()
    settings["roles"]["student"] |= {"terms": {"ce": {"from_step": 2}}}
    settings["roles"]["crd"]["terms"]["contrast"] |= {"until_step": 1}
    windows = build(settings).variants[0].players["student"].windows
    assert [(w.from_step, w.until_step) for w in windows] == [(2, None), (0, 1)]
    ft = experiment_critics.schedules_on(
        "student",
        {"ft": CriticRole(critics.factor_transfer(), ("student", "teacher"), {"paraphrase": {}})},
    )
    assert ft == ()


def test_the_formula_of_a_loss_has_the_weights_of_critics():
    settings = config()
    settings["roles"]["crd"]["terms"]["contrast"] |= {"weight": 0.8, "until_step": 1}
    (variant,) = build(settings).variants
    assert loss_formula(variant, "student").endswith(" + 0.8 ramp crd.contrast")
    ft = CriticRole(
        critics.factor_transfer(),
        ("student", "teacher"),
        {"paraphrase": {"weight": 1.0}, "factor_transfer": {"weight": 2.0}},
    )
    assert loss_formula(variant._replace(critics={"ft": ft}), "student").endswith(
        " + 2 ft.factor_transfer"
    )


def test_the_formula_of_a_loss_names_each_weight_once():
    settings = config()
    terms = {"standardized_kl": {"toward": "teacher", "weight": 5.0, "temperature": 2.0}}
    settings["roles"]["student"] |= {"terms": terms}
    (variant,) = build(settings).variants
    formula = loss_formula(variant, "student")
    assert formula.startswith("5 T^2 standardized_kl(teacher, T = 2) + "), formula


def test_a_role_that_a_critic_trains_has_no_cache():
    settings = frozen()
    settings["roles"]["crd"]["moves"] = "both"
    settings["variants"]["crd"]["roles"]["teacher"] |= {"from_variant": None}
    with pytest.raises(UserError, match=r"roles.teacher.cache is set, but teacher trains"):
        build(settings)


def test_the_experiment_has_a_critic_in_two_variants():
    file = pathlib.Path(__file__).parents[3] / "experiments" / "digits_crd.py"
    variants = build(overrides.read(f"{file}:smoke", ["--config.devices=1"]).config).variants
    rows = {variant.name: list(variant.critics) for variant in variants}
    assert rows == {"alone": [], "kd": [], "crd": ["crd"], "kd_crd": ["crd"]}


def test_a_sweep_may_name_the_critics_scalars():
    table = {RATE: (0.1, 0.3), "roles.crd.terms.contrast.weight": (0.5, 1.0)}
    members = build(config(sweep=table)).variants[0].hparams
    values = [(h["crd"]["optimizer"]["learning_rate"], h["student"]["optimizer"]["learning_rate"],
              h["crd"]["terms"]["contrast"]["weight"]) for h in members]  # fmt: skip
    assert values == [(a, a, w) for a in (0.1, 0.3) for w in (0.5, 1.0)]


def test_players_of_a_critic_are_selected_together():
    def member(number, student, teacher):
        results = {"student/accuracy": student, "teacher/accuracy": teacher}
        results |= {"student/nll": 1.0, "teacher/nll": 1.0}
        values = {"seed": 0, "x": number}
        return MemberResult(member=number, values=values, results={"validation": results})

    table = build(config()).variants[0].players
    members = [member(0, 0.9, 0.1), member(1, 0.5, 0.8)]
    select = selection.Selection("student", "accuracy", higher_is_better=True)
    choose = selection.choose
    assert choose(members, "teacher", table, select).members == (1,)
    assert choose(members, "teacher", table, select, [("student", "teacher")]).members == (0,)


def test_labels_of_a_streamed_set_are_by_id():
    source = build(config()).source
    assert source.arrays is not None
    streamed = experiment_critics.training_labels(source._replace(arrays=None))
    np.testing.assert_array_equal(streamed, source.arrays["label"])


def test_names_of_critic_terms_are_distinct():
    assert set(critics.names()) == {
        "contrast", "correlation_congruence", "dependency", "factor_transfer",
        "variational_information",
    }  # fmt: skip
    assert not set(critics.term_scalars()) & set(terms.TERM_SPECS)
    assert critics.describe("contrast").startswith("CRD: ")


def test_a_completed_config_has_the_critics_scalars():
    scalars = configs.to_dict(configs.from_dict(config()))["roles"]["crd"]["terms"]["contrast"]
    assert {"weight": 0.8, "temperature": 0.3, "momentum": 0.5}.items() <= scalars.items()


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        (crd(between=("student", "techer")), r"roles.crd.between is \('student', 'techer'\); it m"),
        (crd(between=("student", "crd")), "must name two players of teacher, student"),
        (crd(between=("student",)), "must name two players"),
        (crd(between=("student", "student")), "must name two players"),
        (crd(between="student"), "roles.crd.between is 'student'; it must be of type tuple"),
        (crd(model={"name": "mlp"}), "roles.crd.model.name is 'mlp'; .* critic, .* contrast"),
        (crd(model={"name": "contrast", "num_negatives": 0}), "crd.model: num_negatives is 0; it"),
        (crd(model={"name": "contrast", "size": 3}), "has no option 'size'; it has width, num_neg"),
        (crd(model={"name": "contrast", "own_layer": "x"}), "contrast: no layer 'x'"),
        (crd(terms={}), "roles.crd: no terms, so the critic would train no role; it has contrast"),
        (crd(terms={"ce": {}}), "roles.crd: terms.ce: this critic has no such term"),
        (crd(terms={"contrast": {"tau": 1.0}}), "terms.contrast: this term has no scalar 'tau'"),
        (crd(terms={"contrast": {"momentum": 1.0}}), "crd: terms.contrast.momentum is 1; it must"),
        (crd(terms={"contrast": {"weight": "a"}}), "terms.contrast.weight is 'a'; it must be "),
        (crd(terms={"contrast": {"toward": "student"}}), "terms.contrast.toward is set; a crit"),
        (crd(checkpoint="x"), "checkpoint is set, but crd is a critic, which always starts"),
        (crd(pause={"name": "switokd", "watch": "student"}), "crd.pause is set, but crd is a crit"),
        (crd(optimizer={"learning_rate": -1.0}), "crd.optimizer.learning_rate is -1.0; it must"),
        (crd(optimizer={"name": "sdg"}), r"roles.crd.optimizer.name is 'sdg'; it must be sgd"),
    ],
)  # fmt: skip
def test_errors(critic, message):
    with pytest.raises(UserError, match=message) as caught:
        build(config(critic))
    assert str(caught.value).startswith("config: ")
    assert "\n" not in str(caught.value)


def test_errors_across_roles(monkeypatch):
    with pytest.raises(UserError, match=r"roles\.crd\.terms\.contrast\.temperature is 0; it must"):
        build(config(sweep={TEMPERATURE: (0.1, 0.0)}))
    settings = frozen()
    settings["variants"]["crd"]["roles"]["crd"] = {"between": ("teacher", "student")}
    with pytest.raises(UserError, match=r"variants.crd: roles.crd.between .* teacher is frozen"):
        build(settings)
    settings = config()
    settings["roles"]["student"]["terms"]["forward_kl"] = {"toward": "crd"}
    with pytest.raises(UserError, match="forward_kl names 'crd', which is not another play"):
        build(settings)
    monkeypatch.setattr(experiment_critics, "training_labels", lambda source: np.zeros(9, np.int32))
    with pytest.raises(
        UserError, match=r"roles\.crd\.model: all training examples have the same class"
    ):
        build(config())
