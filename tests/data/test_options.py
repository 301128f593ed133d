"""The loaders' options are the keys of a config's `data`, with the same defaults."""

from dataclasses import asdict, fields

from kdjax import data
from kdjax.experiment.config.schema import Config, Data

KINDS = (
    data.BatchOptions,
    data.SplitOptions,
    data.ImageOptions,
    data.PairOptions,
    data.TextOptions,
    data.LanguageOptions,
    data.DetectionOptions,
)


def test_names_and_defaults_match_the_config():
    options = {field.name: field.default for kind in KINDS for field in fields(kind)}
    table = {**Config().model_dump(), **Data().model_dump()}
    options["columns"] = asdict(options["columns"])
    assert options == {name: table[name] for name in options}
    others = {"name", "seed", "mean", "std"}  # not options of the loaders
    assert Data.model_fields.keys() - options.keys() == others
