"""Types of the losses' arguments and results."""

from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num, Shaped

from kdjax.types import Array

Logits = Float[ArrayLike, "*batch classes"]
Labels = Int[ArrayLike, "*batch"]
Mask = Num[ArrayLike, "*batch"] | None  # 1 for examples, 0 for padding
Features = Float[ArrayLike, "batch ..."]
Number = float | int | Shaped[Array, ""]  # a keyword scalar: a constant or a traced value
PerExample = Float[Array, "*batch"]
Scalar = Float[Array, ""]
