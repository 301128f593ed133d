"""Names of terms: a term has its loss's name."""

from kdjax import losses
from kdjax.distill import terms

ALIASES = {"ce": "cross_entropy"}
# if two terms share a loss, the name starts with the place
PLACES = ("label_", "anchor_", "box_", "view_")


def test_a_term_has_its_losss_name():
    names = [ALIASES.get(name, name) for name in terms.TERM_SPECS]
    for place in PLACES:
        names = [name.removeprefix(place) for name in names]
    assert set(names) <= set(losses.__all__)
