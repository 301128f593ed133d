"""Start of one of several processes. It imports jax lazily: most commands do not need it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kdjax.errors import UserError

# Seconds after which a process without heartbeat counts as lost and the others exit, and for which
# a process waits for the others at its end.
SILENT_SECONDS = 30
# These variables or the flags set the addresses. The first name is JAX's.
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@contextmanager
def processes_of(
    enabled: bool, coordinator: str | None, number: int | None, index: int | None
) -> Iterator[None]:
    """Join the other processes for the time of a run; do nothing unless enabled.

    Without an address, JAX detects it on Cloud TPU, GKE, Slurm and Open MPI.

    Args:
      enabled: this is one of several processes.
      coordinator: "host:port" of process 0, or None.
      number: of processes, or None.
      index: of this one, or None.

    Raises:
      UserError: addresses that are incomplete, wrong or not needed; no other processes found.
    """
    flags = {"--coordinator": coordinator, "--num-processes": number, "--process-id": index}
    if not enabled:
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
        multihost.exit_if_peer_lost(error)
        raise


def _join(coordinator: str | None, number: int | None, index: int | None) -> None:
    coordinator = coordinator or os.environ.get(VARIABLES[0])
    number = _count("--num-processes", VARIABLES[1], number)
    index = _count("--process-id", VARIABLES[2], index)
    explicit = [x is not None for x in (coordinator, number, index)]
    if any(explicit) and not all(explicit):
        raise UserError(
            "--coordinator, --num-processes and --process-id (or "
            f"{', '.join(VARIABLES)}) belong together: give all three, or none where JAX finds "
            "them (Cloud TPU, GKE, Slurm, Open MPI)"
        )
    if all(explicit) and not 0 <= (index or 0) < (number or 0):
        raise UserError(f"--process-id is {index}; it must be from 0 to {(number or 0) - 1}")
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            number,
            index,
            cluster_detection_method="deactivate" if all(explicit) else None,
            heartbeat_timeout_seconds=SILENT_SECONDS,
            shutdown_timeout_seconds=SILENT_SECONDS,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"--distributed: the other processes cannot be found ({reason}); outside Cloud TPU, "
            "GKE, Slurm and Open MPI give --coordinator, --num-processes and --process-id"
        ) from error


def _count(flag: str, variable: str, value: int | None) -> int | None:
    text = os.environ.get(variable)
    if value is not None or text is None:
        return value
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{variable} is {text!r}; it must be a whole number, as {flag}") from None
