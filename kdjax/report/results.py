"""Types of a finished run's results; report.json and bounds.json are their JSON form.

A run passes `VariantResult` and `RunSummary` to the report, and `to_json` writes them. `from_json`
reads and checks them. Keys of the files are names of the fields, or their aliases.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from kdjax.errors import UserError

T = TypeVar("T")
# JSON has null for numbers that are not finite.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]

_MEMORY_ONLY = Field(exclude=True)
_UNLESS_EMPTY = Field(exclude_if=lambda value: not value)


@dataclass(frozen=True, kw_only=True)
class MemberResult:
    """Scores of one member of a variant.

    `values` maps the swept paths to the member's values. `diverged` has the step and metric that
    was not finite first, if any. `dropped` has the last step of a member that successive halving
    dropped; it has validation results only. `results` maps a split to metric -> value, NaN where it
    is not finite (null in JSON).
    """

    member: int = 0
    values: Mapping[str, Any]
    diverged: str | None = None
    dropped: Annotated[int | None, _UNLESS_EMPTY] = None
    results: Mapping[str, Mapping[str, Number]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Swept values chosen on the validation split, and the members (one per seed) with them.

    `judge`: the role by whose metric they were chosen; absent from older reports.
    """

    values: Mapping[str, Any]
    members: tuple[int, ...]
    judge: Annotated[str | None, _UNLESS_EMPTY] = None


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
    after: Annotated[ReliabilityBins | None, _UNLESS_EMPTY] = None


@dataclass(frozen=True, kw_only=True)
class PlayerSummary:
    """One role of a variant: its network, and the origin of weights that come from elsewhere.

    `flops` of a forward pass of one example, `size` of the weights in bytes, `latency`: size of a
    batch -> milliseconds.
    """

    model: str = "-"
    parameters: int | None = None
    trains: bool = True
    source: str | None = None
    loss: Annotated[str | None, _UNLESS_EMPTY] = None  # the terms that it minimises, as a formula
    flops: Annotated[float | None, _UNLESS_EMPTY] = None
    size: Annotated[int | None, _UNLESS_EMPTY] = None
    latency: Annotated[Mapping[str, float], _UNLESS_EMPTY] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """Scores of a variant's members and the choices by role; reports show `title` as its name.

    `reliability` pools the bins of the chosen members. `seconds` (the time of training) and
    `detections` (split -> role -> photographs -> rows of left, top, right, bottom, score, class; of
    language models: prompts with texts) are not in report.json.
    """

    name: str
    title: Annotated[str, _UNLESS_EMPTY] = ""
    roles: Annotated[Mapping[str, PlayerSummary], Field(min_length=1)]
    members: tuple[MemberResult, ...]
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    seconds: Annotated[float, _MEMORY_ONLY] = 0.0
    detections: Annotated[Mapping[str, Mapping[str, Any]], _MEMORY_ONLY] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class DetectedBox:
    """One box of a photograph, in its pixels; boxes of labels have no score."""

    box: tuple[float, ...]  # left, top, right, bottom
    score: float | None
    label: Annotated[int, Field(alias="class")]
    name: str


@dataclass(frozen=True, kw_only=True)
class DetectionPanel:
    """Boxes of the labels or of one detector."""

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
class TextSample:
    """A prompt, the text behind it in the data, and the texts that networks wrote, by name."""

    prompt: str
    reference: str
    texts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data set of a run; `sizes` maps a split to its number of examples."""

    name: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: Annotated[tuple[str, ...], _UNLESS_EMPTY] = ()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The metric and the split by which values of the swept paths `over` are chosen.

    `lower_is_better` is absent where higher is, and from older reports.
    """

    split: str = "validation"
    metric: str = "accuracy"
    lower_is_better: Annotated[bool, _UNLESS_EMPTY] = False
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
    variants: Annotated[tuple[VariantResult, ...], Field(min_length=1)]
    config: Mapping[str, Any] = field(default_factory=dict)
    pictures: Annotated[tuple[DetectionPicture, ...], _UNLESS_EMPTY] = ()
    texts: Annotated[tuple[TextSample, ...], _UNLESS_EMPTY] = ()


@dataclass(frozen=True, kw_only=True)
class LayerBound:
    """The bound of one layer and the distances in it."""

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
    losses: Mapping[str, Number] = field(default_factory=dict)
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
    """Convert one of these types to dicts, lists and scalars; non-finite floats become None."""
    return json.loads(_adapter(type(content)).dump_json(content, by_alias=True))


def from_json(kind: type[T], content: Any) -> T:
    """Build one of these types from its JSON form; unknown keys are ignored.

    >>> from_json(Choice, {"values": {"seed": 0}, "members": [3]}).members
    (3,)

    Raises:
      UserError: a part is missing or of the wrong kind.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise UserError(f"{path or 'the content'}: {first['msg']}") from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
