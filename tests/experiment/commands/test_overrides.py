"""An experiment file and its overrides: types, order, dotted sweeps."""

import pathlib
import sys

import pytest

from kdjax.errors import UserError
from kdjax.experiment.commands import overrides

FILE = '''"""What it is.

More of it.
"""
from ml_collections import ConfigDict

def get_config(arg=""):
    config = ConfigDict({
        "num_steps": 5 if arg == "short" else 50,
        "data": {"name": "digits"},
        "roles": {
            "zeta": {
                "model": {"name": "mlp", "hidden": (16,)},
                "terms": {"ce": {}},
                "adapters": {
                    "wide": {"width": 3},
                    "levels": {"kind": "fusion", "sizes": (4, 1)},
                },
            },
            "alpha": {
                "model": {"name": "mlp"},
                "terms": {"ce": {}, "balanced_kl": {"toward": "zeta"}},
            },
        },
    }, sort_keys=False)
    config.sweep = ConfigDict(
        {"roles.*.optimizer.learning_rate": (0.1, 0.2), "seed": (0, 1)},
        allow_dotted_keys=True, sort_keys=False)
    return config
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


def at(table, path):
    for part in path.split("."):
        table = table[part]
    return table


def test_an_option_of_a_network_that_the_file_does_not_set(file):
    flags = ["--config.roles.alpha.model.hidden=(8,)", "--config.roles.zeta.model.name=cnn"]
    _, config = overrides.read(str(file), [*flags, "--config.roles.zeta.model.widths=(4,)"])
    assert config["roles"]["alpha"]["model"] == {"name": "mlp", "hidden": (8,)}
    assert config["roles"]["zeta"]["model"]["widths"] == (4,)
    with pytest.raises(UserError, match=r"roles\.alpha\.model\.widths"):
        overrides.read(str(file), ["--config.roles.alpha.model.widths=(4,)"])


def test_a_file_without_overrides(file):
    title, config = overrides.read(str(file), [])
    assert title == "What it is."
    assert config["num_steps"] == 50
    assert set(config["roles"]) == {"zeta", "alpha"}
    assert list(config["sweep"]) == ["roles.*.optimizer.learning_rate", "seed"]
    assert config["roles"]["alpha"]["terms"]["balanced_kl"]["emphasis"] == 2.0
    assert config["data"]["path"] is None
    assert overrides.read(f"{file}:short", []).config["num_steps"] == 5


def test_a_plain_dict_keeps_its_order(tmp_path):
    path = tmp_path / "plain.py"
    roles = {name: {"model": {"name": "mlp"}, "terms": {"ce": {}}} for name in "cab"}
    config = {"roles": roles, "variants": {name: {} for name in "zyx"}}
    path.write_text(f"def get_config(arg=''):\n    return {config!r}\n")
    config = overrides.read(str(path), ["--config.num_steps=3"]).config
    assert list(config["roles"]) == ["c", "a", "b"]
    assert list(config["variants"]) == ["z", "y", "x"]


def test_a_file_without_docstring_is_titled_by_its_name(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("def get_config(arg=''):\n    return {'roles': {}}\n")
    assert overrides.read(str(path), []).title == "plain"


def test_an_override_without_effect_is_told(file):
    with pytest.raises(UserError, match=r"seed=3: seed is swept; set --config.sweep.seed='\[3\]'"):
        overrides.read(str(file), ["--config.seed=3"])
    own = "config.variants = ConfigDict({'a': {'num_steps': 5}, 'b': {}})\n    return config\n"
    file.write_text(FILE.replace("return config\n", own))
    with pytest.warns(UserWarning, match="num_steps=9 does not change a, with values of their own"):
        assert overrides.read(str(file), ["--config.num_steps=9"]).config["num_steps"] == 9


B = "roles.alpha.terms.balanced_kl."


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("num_steps", "12", 12),
        ("data.limit", "100", 100),  # unset in the file, but its type is known
        ("data.path", "some/where.npz", "some/where.npz"),
        ("data.path", "3", "3"),
        ("data.on_device", "False", False),
        ("data.shape", "(8,8,1)", (8, 8, 1)),
        ("data.test", "0.5", 0.5),
        ("data.test", "300", 300),
        ("tensorboard", "false", False),
        ("tensorboard", "True", True),
        ("parallel", "mesh", "mesh"),
        (B + "temperature", "4", 4.0),  # a float in the file stays a float
        (B + "temperature", "4.5", 4.5),
        (B + "weight", "1e-3", 1e-3),
        (B + "temperature_squared", "false", False),
        (B + "toward", "zeta", "zeta"),
        (B + "ramp.name", "linear", "linear"),
        (B + "ramp.boundaries", "(1,2)", (1, 2)),
        ("roles.zeta.checkpoint", "folder", "folder"),
        ("roles.zeta.model.hidden", "(4,8)", (4, 8)),
        ("roles.zeta.model.hidden", "4", (4,)),
        ("roles.zeta.optimizer.clip_norm", "1", 1.0),
        ("roles.zeta.optimizer.clip_norm", "0.5", 0.5),
        ("roles.zeta.adapters.wide.width", "7", 7),
        ("roles.zeta.adapters.levels.sizes", "(8,1)", (8, 1)),
        ("sweep.seed", "(5,6,7)", (5, 6, 7)),
    ],
)
def test_an_override_has_the_type_of_its_key(file, path, text, value):
    before = overrides.read(str(file), []).config
    after = overrides.read(str(file), [f"--config.{path}={text}"]).config
    changed = at(after, path)
    assert changed == value
    assert type(changed) is type(value)
    parent, _, last = path.rpartition(".")
    (at(before, parent) if parent else before)[last] = changed
    assert after == before  # nothing else has changed


def test_a_sweep_may_be_changed_and_added_by_its_dotted_path(file):
    rate, temperature = "roles.*.optimizer.learning_rate", B + "temperature"
    flags = [f"--config.sweep.{rate}=[0.5]", f"--config.sweep.{temperature}=(1.0, 2.0)"]
    config = overrides.read(str(file), [*flags, "--config.num_steps=3"]).config
    assert config["sweep"] == {rate: (0.5,), "seed": (0, 1), temperature: (1.0, 2.0)}
    assert config["num_steps"] == 3
    drawn = {"log_uniform": (0.001, 0.1)}
    config = overrides.read(str(file), [f"--config.sweep.{rate}={drawn}"]).config
    assert config["sweep"] == {rate: drawn, "seed": (0, 1)}
    for wrong in ("0.5", "", "[0.5", "{}", "open('x')"):
        with pytest.raises(UserError, match="write the values as a list"):
            overrides.read(str(file), [f"--config.sweep.{rate}={wrong}"])


def test_the_last_of_two_overrides_applies(file):
    flags = ["--config.num_steps=3", "--config.num_steps=4"]
    assert overrides.read(str(file), flags).config["num_steps"] == 4


def test_a_folder_of_hugging_face_has_keys_of_its_own(file):
    model = "--config.roles.zeta.model"
    folder = [f"{model}.path=some/folder", f"{model}.from_scratch=True"]
    loaded = overrides.read(str(file), [f"{model}.name=huggingface", *folder])
    table = loaded.config["roles"]["zeta"]["model"]
    assert (table["path"], table["from_scratch"]) == ("some/folder", True)
    assert "path" not in loaded.config["roles"]["alpha"]["model"]
    with pytest.raises(UserError, match=r"unknown key --config\.roles\.zeta\.model\.path"):
        overrides.read(str(file), folder)


def test_variants_can_be_overridden(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(
        FILE.replace(
            "    return config",
            "    config.variants = {'a': {'roles': {'alpha': {'terms': "
            "{'balanced_kl': {'temperature': 2.0}}}}}}\n    return config",
        )
    )
    key = "variants.a.roles.alpha.terms.balanced_kl.temperature"
    assert at(overrides.read(str(path), [f"--config.{key}=3"]).config, key) == 3.0
    with pytest.raises(UserError, match=r"did you mean --config\.variants\.a\.roles\.alpha\?"):
        overrides.read(str(path), ["--config.variants.a.roles.alfa.checkpoint=x"])


def test_reading_defines_no_global_flag(file):
    from absl import flags as absl_flags

    before = set(absl_flags.FLAGS)
    overrides.read(str(file), ["--config.num_steps=3"])
    assert set(absl_flags.FLAGS) == before


def test_a_relative_path_is_relative_to_the_working_directory(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert overrides.read("mine.py", []).config["num_steps"] == 50
    assert pathlib.Path("mine.py").exists()


def test_an_experiment_may_import_its_siblings_from_anywhere(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "_shared.py").write_text("STEPS = 7\n")
    (folder / "one.py").write_text(
        "from mine._shared import STEPS\ndef get_config(arg=''):\n    return {'num_steps': STEPS}\n"
    )
    monkeypatch.chdir("/")
    assert overrides.read(str(folder / "one.py"), []).config["num_steps"] == 7
    assert str(tmp_path) not in sys.path


def test_a_path_with_a_colon_and_one_from_home(tmp_path, monkeypatch):
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "mine.py").write_text(FILE)
    monkeypatch.setenv("HOME", str(folder))
    for path in (folder / "mine.py", "~/mine.py"):
        assert overrides.read(str(path), []).config["num_steps"] == 50
        assert overrides.read(f"{path}:short", []).config["num_steps"] == 5
