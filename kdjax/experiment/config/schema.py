"""The keys of a config: type, default, bounds and meaning of each.

Tables are frozen and refuse unknown keys. Types are strict: a bool is no number; a whole number is
converted to a float, and a list to a tuple. `resolve.from_dict` completes and checks a config,
`schema_lookup.declared` lists the declarations.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from kdjax.experiment.config.key_types import (
    FilePath,
    Floats,
    Ints,
    Names,
    Natural,
    NonNegative,
    Positive,
    Removable,
    Share,
    Sizes,
    Steps,
)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _OpenTable(_Table):
    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not declared here."""
        return dict(self.model_extra or {})


def _key(default: Any, meaning: str, *, of: str = "") -> Any:
    """Declare a key; `of`: the only kind of data with this key."""
    return Field(default, description=meaning, json_schema_extra={"of": of} if of else None)


class Columns(_Table):
    """Columns of a table by name, or suffixes of the members of .tar shards."""

    image: str = _key("", "Images. Empty: image, img or picture.")
    label: str = _key("", "Labels: names of classes or numbers. Empty: label and its like.")
    text: str = _key("", "Texts. Empty: text, sentence, sentence1 and their like.")
    text_pair: str = _key("", "Second texts. Empty: text_pair, sentence2 and their like.")


class Data(_Table):
    """The data set, its splits, and the preparation of its examples."""

    name: str = _key("", "Data set; `kdjax list` lists them.")
    path: FilePath | None = _key(None, "File or folder of the data; of hf also a name of the hub.")
    columns: Columns = _key(Columns(), "Columns of a table.", of="hf, text, webdataset")
    validation: Share = _key(0.1, "Fraction or count of training examples for validation.")
    test: Share | None = _key(None, "Fraction or count for testing, if the set has no test split.")
    split_seed: Natural = _key(0, "Seed of the splits.")
    seed: Natural | None = _key(None, "Seed of order and augmentation. None: the member's.")
    augment: Literal["none", "flip", "crop", "crop_flip", "resized_crop_flip"] = _key(
        "none", "Random transformation of training images."
    )
    mean: Floats | None = _key(None, "Mean of each channel. None: that of the training split.")
    std: Floats | None = _key(None, "Deviation of each channel. None: that of the training split.")
    image_size: Positive | None = _key(None, "Side to which images are resized.")
    canvas: Positive | None = _key(None, "Side of uncropped pictures before resized_crop_flip.")
    eval_crop: Annotated[float, Field(gt=0, le=1)] | None = _key(
        None, "image_size / shorter side in evaluation. None: .875 with resized_crop_flip, else 1."
    )
    limit: Positive | None = _key(None, "Training examples to keep. None: all.")
    workers: Natural = _key(0, "Processes that decode images. 0: threads.")
    on_device: Literal["auto"] | bool = _key("auto", "Keep the set on the device; auto: if small.")
    shape: Ints | None = _key(None, "Shape of images: sets it for synthetic data, else checks it.")
    num_classes: Annotated[int, Field(ge=2)] | None = _key(
        None, "Number of classes: sets it for synthetic data, else checks it."
    )
    tiles: Positive = _key(1, "Drawings in an image.", of="pairs")
    layout: Literal["grid", "stacked"] = _key("grid", "Arrangement of the tiles.", of="pairs")
    tile_size: Positive | None = _key(None, "Side of a tile.", of="pairs")
    characters: Positive | None = _key(None, "Characters of each alphabet.", of="pairs")
    pool: Positive | None = _key(None, "Number of training pairs. None: endless.", of="pairs")
    eval_pairs: Positive = _key(2000, "Pairs of each evaluation split.", of="pairs")
    task: str = _key("", "Task, such as glue/sst2; text for a table.", of="text")
    form: Literal["classify", "choices"] = _key(
        "classify", "Label the text, or rank written answers.", of="text"
    )
    train_file: FilePath | None = _key(None, "Training file, if not train.", of="text")
    vocabulary: FilePath | None = _key(None, "A vocab.txt. None: trained on the texts.", of="text")
    vocabulary_size: Positive = _key(8000, "Size of a trained vocabulary.", of="text")
    tokenizer: FilePath | None = _key(None, "A tokenizer.json instead of WordPiece.", of="text")
    max_length: Annotated[int, Field(ge=8)] = _key(128, "Tokens of the longest text.", of="text")
    lengths: Ints | None = _key(None, "Lengths of padded batches. None: quarters.", of="text")
    window: Positive = _key(16, "Batches that are sorted by length together.", of="text")
    too_long: Literal["truncate", "refuse"] = _key(
        "truncate", "Action for longer texts.", of="text"
    )
    max_boxes: Positive = _key(100, "Most boxes of a training picture.", of="coco")
    unreadable: Literal["refuse", "skip"] = _key(
        "refuse", "Action for damaged pictures.", of="coco, folder, hf, webdataset"
    )
    judge_train: bool = _key(False, "Also evaluate on the training pictures.", of="coco")


class Model(_OpenTable):
    """A network or a critic; the other keys are its options."""

    name: str = _key("", "Network or critic; `kdjax list` lists them.")


class Schedule(_Table):
    """A factor on the learning rate."""

    name: Literal["constant", "step", "cosine", "linear"] = _key(
        "cosine", "Shape of the learning rate over the run."
    )
    warmup_steps: Natural = _key(0, "Steps of a linear rise from 0.")
    boundaries: Steps = _key((), "Steps at which `step` multiplies by the factor.")
    factor: NonNegative = _key(0.1, "Factor of `step`.")


class Optimizer(_Table):
    """The optimizer of a role."""

    name: Literal["sgd", "adam", "adamw", "lion", "rmsprop"] = _key("sgd", "Update rule.")
    learning_rate: NonNegative = _key(0.1, "Peak of the learning rate.")
    weight_decay: NonNegative = _key(
        0.0, "Weight decay; sgd, adam and rmsprop add it to the gradient."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = _key(
        0.9, "Momentum of sgd, b1 of adam and lion, decay of rmsprop."
    )
    nesterov: bool = _key(False, "Nesterov's momentum, of sgd and adam.")
    clip_norm: Annotated[float, Field(gt=0)] | None = _key(
        None, "Largest norm of the role's gradient."
    )
    decay: Literal["all", "kernels"] = _key("all", "Parameters that decay.")
    schedule: Schedule = _key(Schedule(), "Factor on the learning rate.")


class Pause(_Table):
    """The rule by which a role is paused."""

    name: Literal["switokd"] | None = _key(None, "Rule by which the role is paused.")
    watch: str | None = _key(None, "Role that the rule compares with.")


class WeightRamp(_Table):
    """A factor on a term's weight, as a function of the step."""

    name: Literal["linear", "sigmoid", "cosine", "piecewise"] | None = _key(
        None, "Shape of the factor. None: constant 1."
    )
    steps: Natural = _key(0, "Steps of a smooth ramp.")
    boundaries: Steps = _key((), "Steps at which `piecewise` changes.")
    factors: Floats = _key((), "Factors of `piecewise`, one more than boundaries.")


class TemperatureAnneal(_Table):
    """A linear change of a term's temperature."""

    to: Annotated[float, Field(gt=0)] | None = _key(None, "Temperature at the end. None: constant.")
    steps: Natural = _key(0, "Steps until then.")


class Term(_OpenTable):
    """A loss that a role minimises; the other keys are its scalars and layers."""

    loss: str = _key("", "Python path of your own loss, FILE.py:NAME. Empty: the term's name.")
    toward: str | Names = _key((), "Role or roles to compare with.")
    weight: float = _key(1.0, "Factor on the mean over the batch.")
    temperature_squared: bool | None = _key(None, "Multiply by T^2. None: as usual for the loss.")
    ramp: WeightRamp = _key(WeightRamp(), "Factor on the weight.")
    from_step: Natural = _key(0, "First step with the term; its ramp starts there.")
    until_step: Natural | None = _key(
        None, "First step without the term. A role is paused while all its terms are off."
    )
    anneal: TemperatureAnneal = _key(TemperatureAnneal(), "Change of the temperature.")

    @property
    def peers(self) -> tuple[str, ...]:
        """The roles of `toward`."""
        return (self.toward,) if isinstance(self.toward, str) else self.toward


class LinearAdapter(_Table):
    """A linear map of a layer's channels."""

    kind: Literal["linear"] = _key("linear", "Linear map of the channels.")
    layer: str = _key("pooled", "Layer to read.")
    width: Natural = _key(0, "Output channels; must be set.")


class NormDirectionAdapter(_Table):
    """Batch norm, dropout and a linear map of a vector."""

    kind: Literal["norm_direction"] = _key("norm_direction", "Batch norm, dropout, linear map.")
    layer: str = _key("pooled", "Layer to read.")
    width: Natural = _key(0, "Output channels; must be set.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = _key(0.5, "Rate of dropout.")


class FusionAdapter(_Table):
    """Fusion of several layers by attention."""

    kind: Literal["fusion"] = _key("fusion", "Fusion of levels by attention (ReviewKD).")
    layers: Names = _key((), "Layers to read; must be set.")
    widths: Ints = _key((), "Output channels of each layer; must be set.")
    sizes: Sizes = _key((), "Output side or (height, width) of each layer; must be set.")
    mid: Natural = _key(0, "Channels of the fused levels. 0: the deepest layer's, at most 512.")


class ConnectorAdapter(_Table):
    """A 1x1 convolution and batch norm on each of several maps."""

    kind: Literal["connector"] = _key("connector", "1x1 convolution, batch norm (AB, OFD, SRRL).")
    layers: Names = _key((), "Maps to read; must be set.")
    widths: Ints = _key((), "Output channels of each map; must be set.")
    relu: bool = _key(False, "Whether a ReLU follows.")


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


class Role(_Table):
    """A player, or a critic between two players."""

    model: Model = _key(Model(), "Network and its options.")
    input: str = _key("image", "Entry of a batch to read; view is the second of a pair.")
    checkpoint: FilePath | None = _key(None, "Folder of an export with the initial weights.")
    from_variant: str | None = _key(None, "Earlier variant with the initial weights.")
    backbone: FilePath | None = _key(None, "Export with the weights of a detector's backbone.")
    regions: str | None = _key(None, "Role whose regions a detector scores. None: its own.")
    keep_layers: Ints = _key((), "Layers of a transformer's checkpoint to keep. (): all.")
    remat: bool = _key(False, "Recompute activations in the backward pass: less memory.")
    cache: bool = _key(False, "Compute the outputs of a frozen role once for each example.")
    optimizer: Optimizer = _key(Optimizer(), "Optimizer.")
    terms: Annotated[dict[str, Term], Removable] = _key(
        {}, "Losses that it minimises. {}: it is frozen."
    )
    between: Names = _key((), "Two players; the role is then a critic.")
    moves: Literal["first", "both"] = _key("first", "Players that a critic trains.")
    pause: Pause = _key(Pause(), "Rule by which the role is paused.")
    adapters: Annotated[dict[str, Adapter], Removable] = _key({}, "Features added for its terms.")


class Select(_Table):
    """The choice among the members of a sweep."""

    role: str = _key("student", "Role whose metric decides for players that learn together.")
    metric: str | None = _key(None, "Metric on the validation split. None: the task's first.")


class Halving(_Table):
    """Successive halving: points of a sweep that are dropped during the run."""

    steps: Steps = _key((), "Steps after which the worst points are dropped.")
    share: Annotated[float, Field(gt=0, lt=1)] = _key(0.5, "Share of the points that continues.")


class Config(_Table):
    """An experiment."""

    seed: Natural = _key(0, "Seed of initial weights, dropout, order and augmentation.")
    num_steps: Positive = _key(1000, "Steps of the run.")
    batch_size: Positive = _key(128, "Examples of a step, over all devices.")
    accumulate: Positive = _key(1, "Parts of a device's batch that are computed in turn.")
    eval_batch_size: Positive = _key(256, "Examples of an evaluation batch, over all devices.")
    log_every: Natural = _key(50, "Steps between logged metrics. 0: only at the end.")
    eval_every: Natural = _key(0, "Steps between validations. 0: only at the end.")
    checkpoint_every: Natural = _key(500, "Steps between checkpoints. 0: only at the end.")
    grad_norm_every: Natural = _key(0, "Steps between logged norms of gradients. 0: never.")
    keep_checkpoints: Positive = _key(2, "Checkpoints to keep.")
    parallel: Literal["pmap", "mesh"] = _key("pmap", "Way to use several devices.")
    devices: Natural = _key(0, "Number of devices. 0: all.")
    members_per_program: Natural = _key(0, "Members trained together. 0: as many as fit in memory.")
    members_over_devices: bool = _key(True, "Spread members over devices if they divide evenly.")
    steps_per_dispatch: Natural = _key(0, "Steps per call of the device. 0: 1 on a CPU, else 8.")
    precision: Literal["float32", "bfloat16"] = _key("float32", "Type of the computation.")
    tensorboard: bool = _key(True, "Write TensorBoard events.")
    ece_bins: Positive = _key(15, "Bins of the expected calibration error.")
    title: str = _key("", "Name of a variant in reports.")
    data: Data = _key(Data(), "Data set.")
    roles: Annotated[dict[str, Role], Removable] = _key({}, "Name -> player or critic.")
    variants: dict[str, dict[str, Any] | None] = _key({}, "Name -> keys that it overrides.")
    sweep: dict[str, Any] = _key({}, "Path of a number -> list of values or distribution.")
    sweep_mode: Literal["grid", "zip", "random"] = _key("grid", "Combination of the values.")
    sweep_members: Positive = _key(16, "Points of a random sweep; each has all seeds.")
    sweep_seed: Natural = _key(0, "Seed of a random sweep.")
    halving: Halving = _key(Halving(), "Points that are dropped during the run.")
    select: Select = _key(Select(), "Choice among the members of a sweep.")
