"""Export of a trained network of a run: which role, variant and member, and in which format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from kdjax import models
from kdjax.experiment.build.plan import Experiment
from kdjax.experiment.run.train import RunResults
from kdjax.models.io import export as model_export
from kdjax.types import UserError, Variables


def from_workdir(
    run: Experiment,
    story: RunResults,
    *,
    role: str,
    out: Path,
    variant: str | None,
    member: int | None,
    huggingface: bool = False,
) -> str:
    """Write the trained network of a role of a run; returns a line that says which.

    Args:
      run: from `build`.
      story: from `train.load_results`.
      role: whose network; a projector for a term is left out.
      out: a new folder.
      variant: by name; may be left out if there is one.
      member: its number; by default the chosen one with the first seed.
      huggingface: in the reference library's names and layout, a BERT, T5 or GPT-Neo only.

    Raises:
      UserError: no such variant, role or member, it is not trained yet, or no such network.
    """
    names = list(story.outcomes)
    if not names:
        raise UserError("no variant of this run is finished; train first")
    if variant is None and len(names) > 1:
        raise UserError(f"--variant is not given; there are {', '.join(names)}")
    name = variant or names[0]
    if name not in names:
        raise UserError(f"--variant={name}: no such finished variant; there are {', '.join(names)}")
    found = next(v for v in run.variants if v.name == name)
    if role not in found.players:
        raise UserError(f"--role={role}: no such role; there are {', '.join(found.players)}")
    chosen: int = story.outcomes[name]["chosen"][role]["members"][0]
    row = chosen if member is None else member
    if not 0 <= row < len(found.members):
        raise UserError(f"--member={row}; there are 0 to {len(found.members) - 1}")
    merged = models.strip_wrappers(jax.tree.map(lambda x: x[row], story.networks(found)[role]))
    network, spec = run.task.describe_network(found.config["roles"][role]["model"], run.source.spec)
    if huggingface:
        _save_huggingface(out, role, network, merged)
    else:
        about = {"model": network, "role": role, "variant": name, "member": row}
        model_export.save(
            out, merged, {**about, "values": dict(found.members[row]), **spec._asdict()}
        )
    run.task.save_files(run.data.dataset, out)
    return f"{role} of {name}, member {row} {dict(found.members[row])}"


def _save_huggingface(
    out: Path, role: str, network: Mapping[str, Any], variables: Variables
) -> None:
    model_export.refuse_old(out)
    try:
        models.save_huggingface(out, network, variables)
    except UserError as error:
        raise UserError(f"--format=huggingface: {role}: {error}") from error
