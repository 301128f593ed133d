"""Names of terms: a term has its loss's name."""

import pytest

from kdjax import losses
from kdjax.distill import terms
from kdjax.errors import UserError

ALIASES = {"ce": "cross_entropy"}
# if two terms share a loss, the name starts with the place
PLACES = ("label_", "anchor_", "box_", "view_")


def test_a_term_has_its_losss_name():
    names = [ALIASES.get(name, name) for name in terms.TERM_SPECS]
    for place in PLACES:
        names = [name.removeprefix(place) for name in names]
    assert set(names) <= set(losses.__all__)


@pytest.mark.parametrize("name", ["attention_transfer", "neuron_selectivity", "flow_of_solution"])
def test_lists_of_layers_must_be_of_one_length(name):
    with pytest.raises(UserError, match="own_layers has 2 names and peer_layers 3"):
        terms.TERM_SPECS[name](("stage1", "stage2"), ("stage1", "stage2", "stage3"))
