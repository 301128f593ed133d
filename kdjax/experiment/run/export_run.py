"""Export of a trained network of a run, by role, variant and member."""

from typing import NamedTuple

import jax

from kdjax import models
from kdjax.data import LanguageSet, start_id
from kdjax.errors import UserError, prefix_errors
from kdjax.experiment.build import data as experiment_data
from kdjax.experiment.build.plan import Experiment, Variant
from kdjax.experiment.run.results import RunResults
from kdjax.models.io import export as model_export
from kdjax.models.io import huggingface_folder, import_torch, stablehlo
from kdjax.report import files, staging
from kdjax.report.files import Path


class ExportRequest(NamedTuple):
    """The network to export: by role, variant (None: the only one) and member.

    `member` None is the chosen member of the first seed. `form` "torch": also with PyTorch's names;
    "stablehlo": also as a program for any size of a batch; "huggingface": with the
    names and the layout of Hugging Face, for transformers only. `best`: the weights of the best
    validation instead of the last ones.
    """

    role: str
    variant: str | None = None
    member: int | None = None
    form: str = "kdjax"
    best: bool = False


def from_workdir(
    experiment: Experiment, results: RunResults, request: ExportRequest, out: Path
) -> str:
    """Write the trained network of a role of a run, and return its name for a message.

    Projectors of terms are not exported. `out` is a new folder.

    Raises:
      UserError: no such variant, role or member, a variant that is not trained yet, or a network
        without the requested format.
    """
    role, variant = request.role, _find_variant(experiment, results, request.variant)
    if role not in variant.players:
        raise UserError(f"--role={role}: no such role; there are {', '.join(variant.players)}")
    chosen = results.outcomes[variant.name].chosen[role].members[0]
    member = chosen if request.member is None else request.member
    if not 0 <= member < len(variant.members):
        raise UserError(f"--member={member}; there are 0 to {len(variant.members) - 1}")
    stacked = results.networks(variant, best=request.best)[role]
    variables = models.strip_wrappers(jax.tree.map(lambda x: x[member], stacked))
    table = variant.config.roles[role]
    seen = experiment.data.read_by(table.input)
    network, spec = experiment.task.describe_network(table.model.model_dump(), seen.source.spec)
    values = dict(variant.members[member])
    origin = {"role": role, "variant": variant.name, "member": member, "values": values}
    splits = results.outcomes[variant.name].members[member].results
    scores = splits.get("test") or splits["validation"]  # a dropped member has no test scores
    inference = {"temperature": scores.get(f"{role}/temperature")}
    inference["crop"] = experiment_data.eval_crop(variant.config)
    model_export.check_new(out, files.exists)
    with (
        staging.local_folder(out) as local,
        model_export.new_folder(local) as folder,
        prefix_errors(f"--format={request.form}: {role}: "),
    ):
        metadata = {"model": network, **origin, **inference, **spec._asdict()}
        if request.form == "huggingface":
            classes = {"num_classes": spec.num_classes, "class_names": spec.class_names}
            models.save_huggingface(folder, {**network, **classes}, variables)
            if not spec.inputs:
                huggingface_folder.write_normalisation(folder, spec, inference["crop"])
            model_export.save_side_file(folder, metadata)
        else:
            model_export.save(folder, variables, metadata)
        experiment.task.save_files(seen.dataset, folder)
        if request.form == "huggingface" and isinstance(seen.dataset, LanguageSet):
            tokenizer = seen.dataset.tokenizer
            huggingface_folder.write_special_tokens(
                folder, start_id(tokenizer), tokenizer.end_id, tokenizer.encoder.id_to_token
            )
        if request.form == "torch":
            import_torch.write_torch(folder)
        if request.form == "stablehlo":
            stablehlo.write_stablehlo(folder)
    return f"{role} of {variant.name}, member {member} {values}"


def _find_variant(experiment: Experiment, results: RunResults, name: str | None) -> Variant:
    names = list(results.outcomes)
    if not names:
        raise UserError("no variant of this run has a checkpoint; train first")
    if name is None and len(names) > 1:
        raise UserError(f"--variant is not set; there are {', '.join(names)}")
    name = name or names[0]
    if name not in names:
        raise UserError(f"--variant={name}: no such trained variant; there are {', '.join(names)}")
    return next(variant for variant in experiment.variants if variant.name == name)
