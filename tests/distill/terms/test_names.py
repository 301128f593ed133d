"""Terms: their names and the domains of their scalars are those of their losses."""

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


NOT_NEGATIVE = {
    "weighted_kl": ("forward_weight", "reverse_weight"),
    "decoupled_kl": ("alpha", "beta"),
    "regional_decoupled_kl": ("alpha", "beta"),
    "correlation": ("beta", "gamma"),
    "softmax_regression": ("regression_weight",),
}


@pytest.mark.parametrize(
    ("term", "scalar"), [(term, scalar) for term, names in NOT_NEGATIVE.items() for scalar in names]
)
def test_a_scalar_that_its_loss_refuses_below_0_is_refused_by_the_term(term, scalar):
    spec = terms.TERM_SPECS[term]()
    assert terms.make_term(spec, toward=("teacher",), scalars={scalar: 0.0}).scalars[scalar] == 0
    with pytest.raises(UserError, match=f"{scalar} is -0.001; it must be >= 0"):
        terms.make_term(spec, toward=("teacher",), scalars={scalar: -0.001})


def test_the_step_of_a_norm_is_positive():
    with pytest.raises(UserError, match="step is 0; it must be > 0"):
        terms.make_term(terms.stepwise_norm(), scalars={"step": 0.0})
