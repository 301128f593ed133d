"""Memory of a compiled step on one device, reported before the first step."""

from typing import Any, NamedTuple

import jax

from kdjax.errors import RunError
from kdjax.train.memory_estimate import free_bytes
from kdjax.types import Array, PyTree, State

REMEDIES = (
    "Remedies, the cheapest first: roles.<role>.remat = True, accumulate = 2 or more (terms that "
    "couple examples then see a part of the batch), precision = 'bfloat16', more devices"
)
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class Cost(NamedTuple):
    """Bytes on one device during a step, as reported by the compiler.

    `parameters` (including frozen roles) and `optimizer` are parts of the step's arguments;
    `inputs` is the rest of them: statistics, the batch, training data on the device. `working` is
    temporary: activations, gradients, and outputs that do not reuse an argument's memory.
    """

    parameters: int
    optimizer: int
    inputs: int
    working: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.parameters + self.optimizer + self.inputs + self.working


def step_cost(step: Any, state: State, batch: PyTree) -> Cost | None:
    """Return the cost of a step, or None if the compiler does not report it.

    This compiles the step; later calls with such arguments do not compile again.

    Args:
      step: from `Layout.compile_step`, not yet called.
      state: on the devices; not consumed.
      batch: on the devices.

    Raises:
      RunError: the compiler reports that the step does not fit.
    """
    try:
        analysis = step.lower(state, batch).compile().memory_analysis()
    except (NotImplementedError, AttributeError):
        return None
    except jax.errors.JaxRuntimeError as error:  # a TPU's compiler checks the memory
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).split("\n")[0][:200]
        raise RunError(f"the step does not fit the device ({reason}). {REMEDIES}") from error
    if analysis is None:
        return None
    parameters, optimizer = _on_one_device(state.params), _on_one_device(state.opt)
    return Cost(
        parameters=parameters,
        optimizer=optimizer,
        inputs=max(0, analysis.argument_size_in_bytes - parameters - optimizer),
        working=analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes,
    )


def _on_one_device(tree: PyTree) -> int:
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, Array)]
    return sum(x.addressable_shards[0].data.nbytes for x in leaves)


def memory_of(device: Any) -> int:
    """Return an accelerator's total memory, or a CPU's free memory without the state."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return (stats or {}).get("bytes_limit", 0) or free_bytes(device)


def describe(cost: Cost) -> str:
    """Return a short line about a cost."""
    return f"memory of a step: {size(cost.total)} per device ({size(cost.working)} temporary)"


def warning(cost: Cost, available: int) -> str:
    """Return a line with remedies for a step that does not fit; "" if it fits."""
    if cost.total <= available:
        return ""
    return (
        f"a step takes {size(cost.total)}, but the device has {size(available)}: it will not fit. "
        f"{REMEDIES}"
    )


def size(count: int) -> str:
    """Format a number of bytes."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 999 * unit else f"{count // unit} {name}"
    return f"{count} B"
