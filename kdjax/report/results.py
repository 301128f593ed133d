"""Results of a finished run as types, and report.json and bounds.json as their JSON form.

A run hands `VariantResult` and `RunSummary` to the report, and `to_json` writes them. `from_json`
checks and reads them again. The keys of the files are the names of the fields.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from kdjax.errors import UserError

T = TypeVar("T")

# Metadata of fields that report.json does not always hold.
_MEMORY_ONLY = {"written": False}
_UNLESS_EMPTY = {"omit_empty": True}


@dataclass(frozen=True, kw_only=True)
class MemberResult:
    """Scores of one member of a variant.

    `values` maps the swept paths to the member's values. `diverged` says at which step which metric
    was not finite. `results` maps a split to metric -> value, NaN where it is not finite (null in
    JSON).
    """

    member: int = 0
    values: Mapping[str, Any]
    diverged: str | None = None
    results: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Swept values chosen on the validation split, and the members (one a seed) that have them."""

    values: Mapping[str, Any]
    members: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBins:
    """Count, mean accuracy and mean confidence of the examples in each bin of confidence."""

    count: tuple[float, ...]
    accuracy: tuple[float, ...]
    confidence: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Bins of the test split before and, if a temperature was fitted, after scaling."""

    before: ReliabilityBins
    after: ReliabilityBins | None = field(default=None, metadata=_UNLESS_EMPTY)


@dataclass(frozen=True, kw_only=True)
class PlayerSummary:
    """One role of a variant: its network, and the origin of weights that come from elsewhere."""

    model: str = "-"
    parameters: int | None = None
    trains: bool = True
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Scores of a variant's members and the choices among them, by role.

    `reliability` pools the bins of the chosen members. `seconds` (the time of training) and
    `detections` (split -> role -> photographs -> rows of left, top, right, bottom, score, class)
    are not in report.json.
    """

    name: str
    roles: Mapping[str, PlayerSummary]
    members: tuple[MemberResult, ...]
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    seconds: float = field(default=0.0, metadata=_MEMORY_ONLY)
    detections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata=_MEMORY_ONLY)


@dataclass(frozen=True, kw_only=True)
class DetectedBox:
    """One box of a photograph, in its pixels; the truth has no score."""

    box: tuple[float, ...]  # left, top, right, bottom
    score: float | None
    label: int = field(metadata={"key": "class"})
    name: str


@dataclass(frozen=True, kw_only=True)
class DetectionPanel:
    """Boxes of the truth or of one detector."""

    title: str
    boxes: tuple[DetectedBox, ...]


@dataclass(frozen=True, kw_only=True)
class DetectionPicture:
    """A photograph (`jpeg` in base64) and the boxes of each panel."""

    title: str
    width: int
    height: int
    jpeg: str
    panels: tuple[DetectionPanel, ...]


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data set of a run; `sizes` maps a split to its number of examples."""

    name: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The metric and the split that choose among the values of the swept paths `over`."""

    split: str = "validation"
    metric: str = "accuracy"
    over: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The content of report.json."""

    title: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    data: DataSummary = DataSummary()
    steps: int | None = None
    batch_size: int | None = None
    epochs: float | None = None
    wall_seconds: float | None = None
    complete: bool = False
    selection: Selection = Selection()
    variants: tuple[VariantResult, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[DetectionPicture, ...] = field(default=(), metadata=_UNLESS_EMPTY)


@dataclass(frozen=True, kw_only=True)
class LayerBound:
    """The bound of one layer and the distances that it is made of."""

    name: str
    tail: float
    w1: float
    baseline: float
    sliced: float
    entropic: float | None = None
    bound: float


@dataclass(frozen=True, kw_only=True)
class NetworkBounds:
    """Bounds of one network by layer; `gap` is its mean test loss minus its training loss."""

    variant: str
    role: str
    member: int
    values: Mapping[str, Any] = field(default_factory=dict)
    gap: float
    losses: Mapping[str, float] = field(default_factory=dict)
    label_cost: float = math.nan
    samples: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[LayerBound, ...]
    funnel: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class BoundsSummary:
    """The content of bounds.json."""

    command: str = ""
    networks: tuple[NetworkBounds, ...]


def to_json(content: Any) -> Any:
    """Turn one of these types into dicts, lists and scalars; a float that is not finite is None."""
    if dataclasses.is_dataclass(content):
        parts = [(part, getattr(content, part.name)) for part in dataclasses.fields(content)]
        return {
            part.metadata.get("key", part.name): to_json(value)
            for part, value in parts
            if part.metadata.get("written", True) and (value or "omit_empty" not in part.metadata)
        }
    if isinstance(content, Mapping):
        return {key: to_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [to_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def from_json(kind: type[T], content: Any) -> T:
    """Build one of these types from its JSON form; unknown keys are left out.

    >>> from_json(Choice, {"values": {"seed": 0}, "members": [3]}).members
    (3,)

    Raises:
      UserError: a part is missing or of the wrong kind.
    """
    return _decode(kind, content, "")


_JSON_TYPES: Mapping[Any, tuple[tuple[type, ...], str]] = {
    Mapping: ((dict,), "dict"),
    tuple: ((list, tuple), "list"),
    str: ((str,), "string"),
    bool: ((bool,), "bool"),
    int: ((int,), "whole number"),
    float: ((int, float), "number"),
}


def _decode(hint: Any, content: Any, path: str) -> Any:
    """Read `content` as a type hint of a field says; `path` leads to it, for messages."""
    if dataclasses.is_dataclass(hint):
        return _decode_fields(hint, content, path)
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is UnionType:  # X | None
        return None if content is None else _decode(inner[0], content, path)
    if origin is Any:
        return content
    if origin is float and content is None:
        return math.nan
    kinds, name = _JSON_TYPES[origin]
    if not isinstance(content, kinds):
        raise UserError(f"'{path}' is not a {name}")
    if origin is tuple:
        return tuple(_decode(inner[0], x, f"{path}[{n}]") for n, x in enumerate(content))
    if origin is Mapping:
        return {key: _decode(inner[1], x, f"{path}.{key}") for key, x in content.items()}
    return content


def _decode_fields(kind: Any, content: Any, path: str) -> Any:
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is not a dict" if path else "not a JSON object")
    values = {}
    for part in dataclasses.fields(kind):
        key = part.metadata.get("key", part.name)
        if key in content:
            part_path = f"{path}.{key}" if path else key
            values[part.name] = _decode(_hints(kind)[part.name], content[key], part_path)
        elif part.default is part.default_factory is dataclasses.MISSING:
            raise UserError(f"{path or 'the report'} has no '{key}'")
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
