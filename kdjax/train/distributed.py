"""Starting as one of several processes. Free of jax until then: most commands need none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kdjax.errors import UserError

# A process that is silent for so long counts as gone, and the others end; and so long a process
# that ends waits for the others.
SILENT_SECONDS = 30
# By hand: these, or the flags. The first is JAX's own name.
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@contextmanager
def processes_of(
    wanted: bool, coordinator: str | None, number: int | None, index: int | None
) -> Iterator[None]:
    """Join the other processes for the time of a run; nothing happens unless it is wanted.

    Without an address, JAX finds it out on Cloud TPU, GKE, Slurm and Open MPI.

    Args:
      wanted: whether this is one of several processes.
      coordinator: "host:port" of process 0, or None.
      number: how many processes, or None.
      index: of this one, or None.

    Raises:
      UserError: addresses that are incomplete, wrong or not wanted; no other processes there.
    """
    flags = {"--coordinator": coordinator, "--num-processes": number, "--process-id": index}
    if not wanted:
        for flag, value in flags.items():
            if value is not None:
                raise UserError(f"{flag} is given without --distributed; add it or remove {flag}")
        yield
        return
    _join(coordinator, number, index)
    import jax

    from kdjax.train import multihost

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        multihost.leave_if_alone(error)
        raise


def _join(coordinator: str | None, number: int | None, index: int | None) -> None:
    coordinator = coordinator or os.environ.get(VARIABLES[0])
    number = _count("--num-processes", VARIABLES[1], number)
    index = _count("--process-id", VARIABLES[2], index)
    by_hand = [x is not None for x in (coordinator, number, index)]
    if any(by_hand) and not all(by_hand):
        raise UserError(
            "--coordinator, --num-processes and --process-id (or "
            f"{', '.join(VARIABLES)}) belong together: give all three, or none where JAX finds "
            "them (Cloud TPU, GKE, Slurm, Open MPI)"
        )
    if all(by_hand) and not 0 <= (index or 0) < (number or 0):
        raise UserError(f"--process-id is {index}; it must be from 0 to {(number or 0) - 1}")
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            number,
            index,
            cluster_detection_method="deactivate" if all(by_hand) else None,
            heartbeat_timeout_seconds=SILENT_SECONDS,
            shutdown_timeout_seconds=SILENT_SECONDS,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        why = str(error).splitlines()[0][:200]
        raise UserError(
            f"--distributed: the other processes cannot be found ({why}); outside Cloud TPU, GKE, "
            "Slurm and Open MPI give --coordinator, --num-processes and --process-id"
        ) from error


def _count(flag: str, variable: str, given: int | None) -> int | None:
    said = os.environ.get(variable)
    if given is not None or said is None:
        return given
    try:
        return int(said)
    except ValueError:
        raise UserError(f"{variable} is {said!r}; it must be a whole number, as {flag}") from None
