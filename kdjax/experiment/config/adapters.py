"""The keys of adapters: features added to a network for its terms."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from kdjax.experiment.config.key_types import Ints, Names, Natural, Sizes, Table, key


class LinearAdapter(Table):
    """A linear map of a layer's channels."""

    kind: Literal["linear"] = key("linear", "Linear map of the channels.")
    layer: str = key("pooled", "Layer to read.")
    width: Natural = key(0, "Output channels; must be set.")


class NormDirectionAdapter(Table):
    """Batch norm, dropout and a linear map of a vector."""

    kind: Literal["norm_direction"] = key("norm_direction", "Batch norm, dropout, linear map.")
    layer: str = key("pooled", "Layer to read.")
    width: Natural = key(0, "Output channels; must be set.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = key(0.5, "Rate of dropout.")


class FusionAdapter(Table):
    """Fusion of several layers by attention."""

    kind: Literal["fusion"] = key("fusion", "Fusion of levels by attention (ReviewKD).")
    layers: Names = key((), "Layers to read; must be set.")
    widths: Ints = key((), "Output channels of each layer; must be set.")
    sizes: Sizes = key((), "Output side or (height, width) of each layer; must be set.")
    mid: Natural = key(0, "Channels of the fused levels. 0: the deepest layer's, at most 512.")


class ConnectorAdapter(Table):
    """A 1x1 convolution and batch norm on each of several maps."""

    kind: Literal["connector"] = key("connector", "1x1 convolution, batch norm (AB, OFD, SRRL).")
    layers: Names = key((), "Maps to read; must be set.")
    widths: Ints = key((), "Output channels of each map; must be set.")
    relu: bool = key(False, "Whether a ReLU follows.")


def _kind(adapter: Any) -> Any:
    if isinstance(adapter, Mapping):
        return adapter.get("kind", "linear")
    return getattr(adapter, "kind", "linear")


Adapter = Annotated[
    Annotated[LinearAdapter, Tag("linear")]
    | Annotated[NormDirectionAdapter, Tag("norm_direction")]
    | Annotated[FusionAdapter, Tag("fusion")]
    | Annotated[ConnectorAdapter, Tag("connector")],
    Discriminator(_kind),
]
