"""Studies: computations over many settings whose result is a figure with its numbers.

A study is a function of keyword arguments that returns a `Study`; an experiment file names it and
gives the arguments. numpy in float64 on the host; nothing here trains, reads files or draws.
"""

from collections.abc import Callable, Mapping

from kdjax.studies.contraction import contraction
from kdjax.studies.correlation import Correlation, spearman, spearman_by_setting
from kdjax.studies.findings import Line, Panel, Sheet, Study, plain
from kdjax.studies.gaussian import gaussian
from kdjax.studies.gibbs import gibbs
from kdjax.studies.laboratory import laboratory
from kdjax.studies.tracking import tracking

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
