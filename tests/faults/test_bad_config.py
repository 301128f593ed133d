"""Errors of configs and flags: one line that names the key and a valid value."""

import jax
import pytest

from tests.faults.commands import base, experiment, refused, train

STUDENT = "roles__student__"
BALANCED = STUDENT + "terms__balanced_kl__"
RATE = "roles.student.optimizer.learning_rate"
TEMPERATURE = "roles.student.terms.balanced_kl.temperature"


def js(mixture):
    return {STUDENT + "terms__jensen_shannon": {"toward": "teacher", "mixture": mixture}}


def ramp(**schedule):
    return {STUDENT + "terms__ce__ramp": schedule}


def adapted(adapter, name="wide", **hint):
    """Return a student with an adapter, and feature_mse on its feature "wide"."""
    hint = {"toward": "teacher", "own_layer": "wide", **hint}
    return {STUDENT + "adapters": {name: adapter}, STUDENT + "terms__feature_mse": hint}


def nd_variant(nd):
    """Return a second variant: ND toward the frozen teacher of the first."""
    frozen = {"terms": {"ce": None}, "from_variant": "a"}
    roles = {
        "teacher": frozen,
        "student": {"terms": {"norm_direction": {"toward": "teacher", **nd}}},
    }
    return {"variants": {"a": {}, "b": {"roles": roles}}}


def fused(**changes):
    """Return two levels of the student and (2, 2, 8) and (8,) of the teacher, with changes."""
    levels = {"layers": ("stage1_pre", "pooled"), "widths": (8, 8), "sizes": (2, 1)}
    review = {"toward": "teacher", "peer_layers": ("stage1_pre", "pooled")}
    return {
        "roles__teacher__model": {"name": "cnn", "widths": (8,)},
        STUDENT + "model": {"name": "cnn", "widths": (4,)},
        STUDENT + "adapters": {"review": {"kind": "fusion", **levels, **changes}},
        STUDENT + "terms__hierarchical_context": review,
    }


def connected(layer, width):
    """Return a student with a connector on a layer, and AB toward the teacher's (2, 2, 8)."""
    return {
        "roles__teacher__model": {"name": "cnn", "widths": (8,)},
        STUDENT + "model": {"name": "cnn", "widths": (4, 4)},
        STUDENT + "adapters": {
            "connector": {"kind": "connector", "layers": (layer,), "widths": (width,)}
        },
        STUDENT + "terms__activation_boundary": {
            "toward": "teacher",
            "peer_layers": ("stage1_pre",),
        },
    }


ADAPTERS = {
    "adapter of an unknown kind": (
        adapted({"kind": "conv"}),
        ("roles.student.adapters.wide.kind is 'conv'", "linear, norm_direction, fusion"),
    ),
    "adapter is no table": (adapted(8), ("roles.student.adapters.wide is 8", "table")),
    "adapters are no table": ({STUDENT + "adapters": 8}, ("roles.student.adapters is 8", "table")),
    "key of another kind": (
        adapted({"width": 8, "dropout": 0.5}),
        ("unknown key roles.student.adapters.wide.dropout", "kind, layer, width"),
    ),
    "adapter at an unknown layer": (
        adapted({"layer": "stage1", "width": 8}),
        ("roles.student: adapters.wide", "'stage1'", "hidden0, pooled"),
    ),
    "adapter without width": (adapted({}), ("roles.student.adapters.wide: width is 0",)),
    "adapter of another width": (
        adapted({"width": 7}),
        ("'wide' of student is (7,)", "(8,)", "set roles.student.adapters.wide.width = 8"),
    ),
    "adapter named as a layer": (
        adapted({"width": 8}, name="pooled", own_layer="pooled"),
        ("adapters.pooled: 'pooled' is a layer already",),
    ),
    "dropout of all": (
        adapted({"kind": "norm_direction", "width": 8, "dropout": 1.0}),
        (
            "roles.student.adapters.wide.dropout is 1.0",
            "< 1",
        ),
    ),
    "adapter that no term uses": (
        adapted({"width": 8}, name="narrow", own_layer="pooled"),
        ("roles.student.adapters.narrow is used by no term", "own_layer = 'narrow'"),
    ),
    "adapter that no term of any variant uses": (
        {STUDENT + "adapters": {"wide": {"width": 8}}, "variants": {"a": {}, "b": {}}},
        ("roles.student.adapters.wide is used by no term",),
    ),
    "adapter beside a checkpoint": (
        {**adapted({"width": 8}), STUDENT + "checkpoint": "x"},
        ("roles.student sets both checkpoint and adapters.wide",),
    ),
    "fusion lacks a size": (fused(sizes=(2,)), ("adapters.review", "2 names", "sizes 1")),
    "fusion of another size": (
        fused(sizes=(4, 1)),
        ("'review1' of student is (4, 4, 8)", "(2, 2, 8)", "adapters.review.sizes[0] = (2, 2)"),
    ),
    "fusion of another width": (
        fused(widths=(8, 6)),
        ("'review2' of student is (6,)", "(8,)", "adapters.review.sizes[1] = 1 and .widths[1] = 8"),
    ),
    "fusion of an unknown layer": (
        fused(layers=("stage2", "pooled")),
        ("roles.student: adapters.review: no layer 'stage2'", "pooled, stage1, stage1_pre"),
    ),
    "connector of another width": (
        connected("stage1_pre", width=7),
        (
            "'connector1' of student is (2, 2, 7)",
            "set roles.student.adapters.connector.widths[0] = 8",
        ),
    ),
    "connector of a map of another size": (
        connected("stage2_pre", width=8),
        (
            "a connector keeps the size",
            "roles.student.adapters.connector.layers[0] to a map of 2 x 2, and .widths[0] = 8",
        ),
    ),
    "review without a fusion": (
        {**fused(), STUDENT + "adapters": {}},
        (
            "terms.hierarchical_context: student has no layer 'review1'",
            "pooled, stage1, stage1_pre",
        ),
    ),
    "review of more levels than are fused": (
        {
            **fused(),
            STUDENT + "terms__hierarchical_context": {
                "toward": "teacher",
                "peer_layers": ("stage1_pre", "pooled", "pooled"),
            },
        },
        ("terms.hierarchical_context: student has no layer 'review3'", "review1, review2"),
    ),
}

# error -> (changes of the config, words of the line)
FILES = {
    "text for images": ({"data__task": "glue/rte"}, ("data.task is set, but only text has it",)),
    "no layers to keep": (
        {STUDENT + "keep_layers": (0,)},
        ("roles.student.keep_layers is set, but nothing is read", "from_variant"),
    ),
    **ADAPTERS,
    "unknown key": ({"num_step": 5}, ("num_step", "did you mean num_steps?")),
    "unknown key of a role": (
        {STUDENT + "optimiser": {}},
        ("roles.student.optimiser", "did you mean roles.student.optimizer?"),
    ),
    "unknown key of a variant": (
        {"variants": {"a": {STUDENT.replace("__", ".") + "optimiser": {}}}},
        ("config.variants.a", "did you mean roles.student.optimizer?"),
    ),
    "unknown number of a term": (
        {BALANCED + "temprature": 2.0},
        ("roles.student.terms.balanced_kl", "'temprature'", "it has weight, temperature"),
    ),
    "text for a number": ({"num_steps": "60"}, ("num_steps is '60'", "type int")),
    "bool for a number": ({"num_steps": True}, ("num_steps is True", "type int")),
    "role is no table": ({"roles__student": 3}, ("roles.student is 3", "table")),
    "terms are no table": ({STUDENT + "terms": 3}, ("roles.student.terms is 3", "table")),
    "term is no table": ({STUDENT + "terms__ce": 3}, ("roles.student.terms.ce is 3", "table")),
    "model is no table": ({STUDENT + "model": "mlp"}, ("roles.student.model is 'mlp'", "table")),
    "data is no table": ({"data": "digits"}, ("data is 'digits'", "dict")),
    "variants are no table": ({"variants": ["a"]}, ("variants is ['a']", "dict")),
    "variant is no table": ({"variants": {"a": 3}}, ("variants.a is 3", "table")),
    "sweep is no table": ({"sweep": [1]}, ("sweep is [1]", "dict")),
    "text for a temperature": ({BALANCED + "temperature": "2"}, (TEMPERATURE, "number")),
    "toward a number": ({BALANCED + "toward": 3}, ("balanced_kl.toward is 3", "str")),
    "model option": (
        {STUDENT + "model__width": 3},
        ("roles.student.model", '"width"', "hidden"),
    ),
    "model option of no sense": ({STUDENT + "model__hidden": (0,)}, ("hidden is (0,)",)),
    "unknown loss": (
        {STUDENT + "terms__balanced": {}},
        ("roles.student.terms.balanced", "there are activation_boundary, adaptive_kl"),
    ),
    "toward nobody": ({BALANCED + "toward": None}, ("terms.balanced_kl", "toward")),
    "toward a missing role": (
        {BALANCED + "toward": "techer"},
        ("roles.student", "'techer'", "(teacher)"),
    ),
    "toward itself": ({BALANCED + "toward": "student"}, ("roles.student", "'student'")),
    "labels need no peer": ({STUDENT + "terms__ce__toward": "teacher"}, ("terms.ce", "toward")),
    "frozen without weights": (
        {"roles__teacher__terms": {}},
        ("roles.teacher", "roles.teacher.checkpoint", "from_variant"),
    ),
    "all frozen": (
        {"roles__teacher__terms": {}, STUDENT + "terms": {}},
        ("no role has terms",),
    ),
    "no roles": ({"roles": {}}, ("roles is empty",)),
    "from an unknown variant": (
        {"roles__teacher__from_variant": "alone", "variants": {"a": {}, "b": {}}},
        ("config.variants.a: roles.teacher.from_variant is 'alone'", "none"),
    ),
    "from a later variant": (
        {"variants": {"a": {"roles.teacher.from_variant": "b"}, "b": {}}},
        ("roles.teacher.from_variant is 'b'", "earlier variants: none"),
    ),
    "batch of a variant": (
        {"variants": {"a": {"batch_size": 16}, "b": {}}},
        ("config.variants.a: batch_size: 32 -> 16", "set it outside variants", "num_steps, "),
    ),
    "data of a variant": (
        {"variants": {"a": {}, "b": {"data.seed": 3}}},
        ("config.variants.b: data.seed: None -> 3", "set it outside variants"),
    ),
    "two origins": (
        {"roles__teacher__from_variant": "a", "roles__teacher__checkpoint": "x"},
        ("roles.teacher sets both checkpoint and from_variant",),
    ),
    "ramp": (ramp(name="cubic"), ("roles.student.terms.ce.ramp.name", "linear")),
    "ramp without steps": (ramp(name="linear"), ("terms.ce: ramp.steps is 0", ">= 1")),
    "ramp lacks a factor": (
        ramp(name="piecewise", boundaries=(2,), factors=(1.0,)),
        ("ramp.factors (1.0,)", "one factor more"),
    ),
    "ramp that does not rise": (
        ramp(name="piecewise", boundaries=(3, 2), factors=(1.0, 0.5, 0.0)),
        ("terms.ce: ramp.boundaries is (3, 2)", "increasing whole numbers"),
    ),
    "boundary before the run": (
        {STUDENT + "optimizer": {"schedule": {"name": "step", "boundaries": (-1,)}}},
        ("roles.student.optimizer.schedule.boundaries", "0"),
    ),
    "warm-up past the end": (
        {STUDENT + "optimizer": {"schedule": {"warmup_steps": 10**6}}},
        ("roles.student.optimizer: schedule.warmup_steps is 1000000", "num_steps"),
    ),
    "momentum of 1": (
        {STUDENT + "optimizer": {"momentum": 1.0}},
        ("roles.student.optimizer.momentum", "1"),
    ),
    "pause": (
        {STUDENT + "pause": {"name": "nap", "watch": "teacher"}},
        ("roles.student.pause.name is 'nap'", "switokd"),
    ),
    "square without temperature": (
        {STUDENT + "terms__ce__temperature_squared": True},
        ("terms.ce", "temperature_squared"),
    ),
    "mixture 0": (js(0.0), ("terms.jensen_shannon", "mixture is 0", "> 0 and < 1")),
    "mixture 1": (js(1.0), ("terms.jensen_shannon", "mixture is 1", "> 0 and < 1")),
    "swept temperature": (
        {"sweep": {TEMPERATURE: (1.0, 0.0)}},
        (f"{TEMPERATURE} is 0", "> 0"),
    ),
    "swept mixture": (
        {**js(0.5), "sweep": {"roles.student.terms.jensen_shannon.mixture": (0.5, 1.0)}},
        ("roles.student.terms.jensen_shannon.mixture is 1", "> 0 and < 1"),
    ),
    "swept text": ({"sweep": {TEMPERATURE: ("warm",)}}, (f"sweep.{TEMPERATURE}", "numbers")),
    "swept number": ({"sweep": {TEMPERATURE: 3.0}}, (f"sweep.{TEMPERATURE} is 3.0", "list")),
    "swept nothing": ({"sweep": {TEMPERATURE: ()}}, (f"sweep.{TEMPERATURE} is ()", "list")),
    "swept half a seed": ({"sweep": {"seed": (0.5,)}}, ("seed is 0.5", "whole number")),
    "swept twice": ({"sweep": {"seed": (3, 3)}}, ("sweep", "'seed': 3", "twice")),
    "sweep of a shape": (
        {"sweep": {"roles.student.model.hidden": (4, 8)}},
        ("sweep.roles.student.model.hidden", "variants", RATE),
    ),
    "sweep of the batch size": ({"sweep": {"batch_size": (32, 64)}}, ("sweep.batch_size", RATE)),
    "sweep of an absent term": (
        {"sweep": {"roles.student.terms.forward_kl.temperature": (1.0,)}},
        ("sweep.roles.student.terms.forward_kl.temperature", TEMPERATURE),
    ),
    "zip of unequal lists": (
        {"sweep_mode": "zip", "sweep": {"seed": (0, 1), RATE: (0.1,)}},
        ("sweep_mode is zip", "'seed': 2"),
    ),
    "hint between two widths": (
        {STUDENT + "terms__feature_mse": {"toward": "teacher"}},
        (
            "layer 'pooled' of student is (6,)",
            "layer 'pooled' of teacher is (8,)",
            "roles.student.adapters.wide = {'layer': 'pooled', 'width': 8}",
            "own_layer = 'wide'",
        ),
    ),
    "hint at an unknown layer": (
        {STUDENT + "terms__feature_mse": {"toward": "teacher", "own_layer": "stage1"}},
        ("terms.feature_mse", "student has no layer 'stage1'", "hidden0, pooled"),
    ),
    "norm of an unknown layer": (
        {STUDENT + "terms__stepwise_norm": {"own_layer": "stage1"}},
        ("terms.stepwise_norm", "student has no layer 'stage1'", "hidden0, pooled"),
    ),
    "class means of another width": (
        nd_variant({}),
        ("norm_direction: layer 'pooled' of student is (6,)", "teacher is (8,)", "adapters.wide"),
    ),
    "class means of an unknown layer": (
        nd_variant({"peer_layer": "stage1"}),
        ("roles.teacher", "class means", "'stage1'", "hidden0, pooled"),
    ),
    "class means of a map": (
        {
            "roles__teacher__model": {"name": "cnn", "widths": (4,)},
            STUDENT + "model": {"name": "cnn", "widths": (4,)},
            **nd_variant({"own_layer": "stage1", "peer_layer": "stage1"}),
        },
        ("norm_direction: layer 'stage1' of teacher is (2, 2, 4)", "vector", "'pooled'"),
    ),
    "infinite weight": ({BALANCED + "weight": float("inf")}, ("balanced_kl.weight is inf",)),
    "select.role": ({"select": {"role": "pupil"}}, ("select.role is 'pupil'", "teacher, student")),
    "select.metric": ({"select": {"metric": "acc"}}, ("select.metric is 'acc'", "accuracy")),
}

# flags -> words of the line
FLAGS = {
    "--config.roles.student.optimizer.learning_rat=1": (f"did you mean --config.{RATE}?",),
    "--config.roles.studnt.checkpoint=x": ("--config.roles.studnt", "--config.roles.student?"),
    "--config.zzz=1": ("--config.zzz", "known: ", "num_steps"),
    "--config.num_steps.x=1": ("--config.num_steps is a value", "'x'"),
    "--config.num_steps=many": ("--config.num_steps=many", "type int"),
    "--config.num_steps=1.5": ("--config.num_steps=1.5", "type int"),
    "--config.tensorboard=maybe": ("--config.tensorboard=maybe", "type bool"),
    f"--config.{TEMPERATURE}=hot": (f"--config.{TEMPERATURE}=hot", "type float"),
    f"--config.{TEMPERATURE}=0": ("balanced_kl: temperature is 0", "> 0"),
    f"--config.{TEMPERATURE}=-1": ("balanced_kl: temperature is -1", "> 0"),
    f"--config.{TEMPERATURE}=nan": ("balanced_kl: temperature is nan", "finite"),
    "--config.roles.student.terms.balanced_kl.emphasis=0": ("emphasis is 0", "> 0"),
    "--config.roles.student.model.name=mpl": ('"mpl"', "did you mean mlp?", "resnet20"),
    "--config.data.name=digit": ("data.name is 'digit'", "did you mean digits?", "cifar10"),
    "--config.data.name=": ("data.name is not set", "digits"),
    "--config.data.augment=flips": ("data.augment is 'flips'", "crop_flip"),
    "--config.data.validation=0": ("data.validation leaves no validation examples",),
    "--config.data.num_classes=1": ("data.num_classes is 1", ">= 2"),
    "--config.data.image_size=9": ("data.image_size is 9", "(4, 4, 1)"),
    "--config.roles.student.optimizer.name=sdg": ("roles.student.optimizer", "'sdg'", "adamw"),
    "--config.roles.student.optimizer.schedule.name=cos": ("'cos'", "cosine"),
    f"--config.{RATE}=-1": (f"{RATE} is -1", ">= 0"),
    f"--config.{RATE}=nan": (f"{RATE} is nan", ">= 0"),
    f"--config.{RATE}=inf": (f"{RATE} is inf", "finite"),
    "--config.parallel=tpu": ("parallel is 'tpu'", "pmap or mesh"),
    "--config.precision=float16": ("precision is 'float16'", "bfloat16"),
    "--config.sweep_mode=best": ("sweep_mode is 'best'", "grid, zip or random"),
    "--config.seed=-1": ("seed is -1", ">= 0"),
    "--config.batch_size=0": ("batch_size is 0", ">= 1"),
    "--config.batch_size=100000": ("batch_size is 100000", "at most"),
    "--config.log_every=-1": ("log_every is -1", ">= 0"),
    "--config.devices=800": ("devices is 800", "this machine has"),
    f"--config.sweep.{TEMPERATURE}=(1.0,0.0)": (f"{TEMPERATURE} is 0", "> 0"),
    f"--config.sweep.{TEMPERATURE}=4": (f"sweep.{TEMPERATURE}", "list"),
    "--config.sweep.seed=some": ("--config.sweep.seed=some", "list"),
    "--config.sweep=3": ("--config.sweep=3",),
    "--config.num_steps": ("--config.num_steps", "=VALUE"),
    "--confg.num_steps=3": ("--confg.num_steps=3", "--help"),
    "steps": ("unknown argument steps",),
}


@pytest.mark.parametrize(("changes", "words"), FILES.values(), ids=FILES)
def test_errors_in_the_file(changes, words, tmp_path, capsys):
    config = experiment(tmp_path, base(**changes))
    refused(capsys, train(config, tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flag", "words"), FLAGS.items(), ids=FLAGS)
def test_errors_in_a_flag(flag, words, tmp_path, capsys):
    config = experiment(tmp_path, base())
    refused(capsys, train(config, tmp_path / "run", flag), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 (simulated) devices")
@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
def test_batches_must_divide_over_the_devices(key, tmp_path, capsys):
    config = experiment(tmp_path, base())
    flags = ("--config.devices=8", f"--config.{key}=12")
    words = (f"{key} is 12", "multiple of the 8 devices", "use 8")
    refused(capsys, train(config, tmp_path / "run", *flags), *words)
    assert not (tmp_path / "run").exists()


# contents of the file -> words of the line
MODULES = {
    "x = 3": ("must have a get_config",),
    "def get_config(arg=''):\n    return None": ("get_config", "returns a ConfigDict"),
    "def get_config(arg=''):\n    return {}['a']": ("line 2", "KeyError", "'a'"),
    "import nothing_like_this": ("line 1", "ModuleNotFoundError", "nothing_like_this"),
    "def get_config(:": ("SyntaxError", "line 1"),
    "def get_config():\n    return {}": ("TypeError", "get_config"),
}


@pytest.mark.parametrize(("text", "words"), MODULES.items(), ids=MODULES)
def test_a_file_that_raises(text, words, tmp_path, capsys):
    config = tmp_path / "mine.py"
    config.write_text(text + "\n")
    refused(capsys, train(config, tmp_path / "run"), str(config), *words)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_lists_similar_files(tmp_path, capsys):
    experiment(tmp_path, base(), "digits_kd.py")
    experiment(tmp_path, base(), "unlike.py")
    wrong = train(tmp_path / "digit_kd.py", tmp_path / "run")
    line = refused(capsys, wrong, "--config: no file", str(tmp_path / "digits_kd.py"))
    assert "unlike" not in line
    refused(capsys, train(tmp_path, tmp_path / "run"), "no file", "digits_kd.py", "unlike.py")
    refused(capsys, train(tmp_path / "none" / "a.py", tmp_path / "run"), "no file")
