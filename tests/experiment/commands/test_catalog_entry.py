"""`kdjax list NAME`: what a loss, a critic or a network takes, and the layers that it has."""

import pytest

from kdjax.distill import critics, terms
from kdjax.errors import UserError
from kdjax.experiment.commands import catalog_entry
from kdjax.experiment.config.resolve import term_options
from tests.models.test_user_code import NETWORKS


@pytest.mark.parametrize("name", terms.TERM_SPECS)
def test_every_loss_has_its_keys(name):
    lines = catalog_entry.describe(name).splitlines()
    assert lines[0] == f"{name}: a loss, roles.<role>.terms.{name}"
    for key in term_options()[name]:
        assert any(line.startswith(f"    {key} = ") for line in lines)


def test_a_loss_with_bounds():
    text = catalog_entry.describe("balanced_kl")
    assert "    emphasis = 2.0  (> 0)\n" in text
    assert text.endswith("multiplied by T^2 by default: yes")
    assert "class means" in catalog_entry.describe("norm_direction")


@pytest.mark.parametrize("name", critics.names())
def test_every_critic_has_its_options(name):
    assert "    own_layer" in catalog_entry.describe(name)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("resnet20", ('    shortcut = "conv"', "272,474", "    stage2 [1, 32, 32, 32]")),
        ("bert", ("    num_heads = 4", "    pooled [1, 256]")),
        ("t5", ("    token_mask [1, 4]",)),
        ("faster_rcnn", ("    pooled [1000, 1024]",)),
    ],
)
def test_a_network_has_its_options_and_layers(name, lines):
    text = catalog_entry.describe(name)
    assert all(line in text for line in lines)
    assert "axis_name" not in text


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean forward_kl"):
        catalog_entry.describe("forward_lk")


OWN = (
    NETWORKS
    + """
def squared(student, teacher, *, temperature=2.0):
    \"\"\"Squared distance of the logits.\"\"\"
    return ((student - teacher) ** 2).mean(-1) / temperature
"""
)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Net", ("a network, roles", "    width = 4\n", "parameters with 10 classes: 49,206")),
        ("Nnx", ("a network, roles", "    pixels = null\n", "needs the option 'pixels'")),
        ("squared", ("a loss, roles", "Squared distance", "    temperature = 2.0  (> 0)\n")),
    ],
)
def test_a_network_or_loss_of_a_file(name, lines, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    text = catalog_entry.describe(f"{file}:{name}")
    assert text.startswith(f"{file}:{name}: ")
    assert [line for line in lines if line not in text] == []


def test_a_missing_object_of_a_file_is_refused(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(UserError, match="has no 'Nxn'; did you mean Nnx"):
        catalog_entry.describe(f"{tmp_path}/own.py:Nxn")
