"""Types of config keys (numbers with bounds, tuples, paths) and of the tables that hold them."""

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Natural | NonNegative  # a count, or a fraction below 1


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _without_none(table: Any) -> Any:
    """Drop the entries that are None, with which a variant removes a role or a term."""
    if isinstance(table, dict):
        return {name: entry for name, entry in table.items() if entry is not None}
    return {} if table is None else table


TupleOf = BeforeValidator(_as_tuple)
Removable = BeforeValidator(_without_none)
Ints = Annotated[tuple[int, ...], TupleOf]
Steps = Annotated[tuple[Natural, ...], TupleOf]
Floats = Annotated[tuple[float, ...], TupleOf]
Names = Annotated[tuple[str, ...], TupleOf]
Sizes = Annotated[tuple[int | Annotated[tuple[int, int], TupleOf], ...], TupleOf]


# ~ is the home folder
FilePath = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


class Table(BaseModel):
    """A table that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class OpenTable(Table):
    """A table that takes further keys as options."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not declared here."""
        return dict(self.model_extra or {})


def key(default: Any, meaning: str, *, of: str = "") -> Any:
    """Declare a key; `of`: the only kind of data with this key."""
    return Field(default, description=meaning, json_schema_extra={"of": of} if of else None)
