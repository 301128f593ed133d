"""Studies: computations over many settings whose result is a figure with its numbers.

A study is a function of keyword arguments that returns a `Study`; an experiment file names it and
gives the arguments. numpy in float64 on the host; nothing here trains, reads files or draws.
"""

from collections.abc import Callable, Mapping

from kdjax.bounds.studies.contraction import contraction
from kdjax.bounds.studies.correlation import Correlation, spearman, spearman_by_setting
from kdjax.bounds.studies.enumeration import laboratory
from kdjax.bounds.studies.gap_correlation import tracking
from kdjax.bounds.studies.gaussian import gaussian
from kdjax.bounds.studies.gibbs import gibbs
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study, plain

__all__ = [
    "STUDIES",
    "Correlation",
    "Line",
    "Panel",
    "Sheet",
    "Study",
    "contraction",
    "gaussian",
    "gibbs",
    "laboratory",
    "plain",
    "spearman",
    "spearman_by_setting",
    "tracking",
]

STUDIES: Mapping[str, Callable[..., Study]] = {
    "contraction": contraction,
    "gaussian": gaussian,
    "gibbs": gibbs,
    "laboratory": laboratory,
}
