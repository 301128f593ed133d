"""The keys of a config: type, default, bounds and meaning of each.

Tables are frozen and refuse unknown keys. Types are strict: a bool is no number; a whole number is
converted to a float, and a list to a tuple. `resolve.from_dict` completes and checks a config,
`schema_lookup.declared` lists the declarations.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from kdjax.experiment.config.adapters import Adapter
from kdjax.experiment.config.key_types import (
    FilePath,
    Floats,
    Ints,
    Names,
    Natural,
    NonNegative,
    OpenTable,
    Positive,
    Removable,
    Share,
    Steps,
    Table,
    key,
)


class Columns(Table):
    """Columns of a table by name, or suffixes of the members of .tar shards."""

    image: str = key("", "Images. Empty: image, img or picture.")
    label: str = key("", "Labels: names of classes or numbers. Empty: label and its like.")
    text: str = key("", "Texts. Empty: text, sentence, sentence1 and their like.")
    text_pair: str = key("", "Second texts. Empty: text_pair, sentence2 and their like.")


class Data(Table):
    """The data set, its splits, and the preparation of its examples."""

    name: str = key("", "Data set; `kdjax list` lists them.")
    path: FilePath | None = key(None, "File or folder of the data; of hf also a name of the hub.")
    columns: Columns = key(Columns(), "Columns of a table.", of="hf, text, webdataset")
    validation: Share = key(0.1, "Fraction or count of training examples for validation.")
    test: Share | None = key(None, "Fraction or count for testing, if the set has no test split.")
    split_seed: Natural = key(0, "Seed of the splits.")
    seed: Natural | None = key(None, "Seed of order and augmentation. None: the member's.")
    augment: Literal["none", "flip", "crop", "crop_flip", "resized_crop_flip"] = key(
        "none", "Random transformation of training images."
    )
    mean: Floats | None = key(None, "Mean of each channel. None: that of the training split.")
    std: Floats | None = key(None, "Deviation of each channel. None: that of the training split.")
    image_size: Positive | None = key(None, "Side to which images are resized.")
    canvas: Positive | None = key(None, "Side of uncropped pictures before resized_crop_flip.")
    eval_crop: Annotated[float, Field(gt=0, le=1)] | None = key(
        None, "image_size / shorter side in evaluation. None: .875 with resized_crop_flip, else 1."
    )
    limit: Positive | None = key(None, "Training examples to keep. None: all.")
    workers: Natural = key(0, "Processes that decode images. 0: threads.")
    on_device: Literal["auto"] | bool = key("auto", "Keep the set on the device; auto: if small.")
    shape: Ints | None = key(None, "Shape of images: sets it for synthetic data, else checks it.")
    num_classes: Annotated[int, Field(ge=2)] | None = key(
        None, "Number of classes: sets it for synthetic data, else checks it."
    )
    tiles: Positive = key(1, "Drawings in an image.", of="pairs")
    layout: Literal["grid", "stacked"] = key("grid", "Arrangement of the tiles.", of="pairs")
    tile_size: Positive | None = key(None, "Side of a tile.", of="pairs")
    characters: Positive | None = key(None, "Characters of each alphabet.", of="pairs")
    pool: Positive | None = key(None, "Number of training pairs. None: endless.", of="pairs")
    eval_pairs: Positive = key(2000, "Pairs of each evaluation split.", of="pairs")
    task: str = key("", "Task, such as glue/sst2; text for a table.", of="text")
    form: Literal["classify", "choices"] = key(
        "classify", "Label the text, or rank written answers.", of="text"
    )
    train_file: FilePath | None = key(None, "Training file, if not train.", of="text")
    vocabulary: FilePath | None = key(None, "A vocab.txt. None: trained on the texts.", of="text")
    vocabulary_size: Positive = key(8000, "Size of a trained vocabulary.", of="text")
    tokenizer: FilePath | None = key(None, "A tokenizer.json. None: trained.", of="lm, text")
    max_length: Annotated[int, Field(ge=8)] = key(
        128, "Tokens of the longest text, or of a row.", of="lm, text"
    )
    lengths: Ints | None = key(None, "Lengths of padded batches. None: quarters.", of="text")
    window: Positive = key(16, "Batches that are sorted by length together.", of="text")
    too_long: Literal["truncate", "refuse"] = key(
        "truncate", "Action for longer texts, or longer completions.", of="lm, text"
    )
    packing: Literal["pack", "pad"] = key("pack", "Rows of several texts, or of one.", of="lm")
    bpe_size: Positive = key(4096, "Size of a byte-level BPE that is trained.", of="lm")
    second_tokenizer: FilePath | None = key(
        None, "Tokenizer of the roles whose input is second.", of="lm"
    )
    second_bpe_size: Positive | None = key(None, "Trains the second tokenizer.", of="lm")
    rouge_prompts: Natural = key(0, "Test prompts to complete, for ROUGE-L.", of="lm")
    max_boxes: Positive = key(100, "Most boxes of a training picture.", of="coco")
    unreadable: Literal["refuse", "skip"] = key(
        "refuse", "Action for damaged pictures.", of="coco, folder, hf, webdataset"
    )
    judge_train: bool = key(False, "Also evaluate on the training pictures.", of="coco")


class Model(OpenTable):
    """A network or a critic; the other keys are its options."""

    name: str = key("", "Network or critic; `kdjax list` lists them.")


class Schedule(Table):
    """A factor on the learning rate."""

    name: Literal["constant", "step", "cosine", "linear"] = key(
        "cosine", "Shape of the learning rate over the run."
    )
    warmup_steps: Natural = key(0, "Steps of a linear rise from 0.")
    boundaries: Steps = key((), "Steps at which `step` multiplies by the factor.")
    factor: NonNegative = key(0.1, "Factor of `step`.")


class Optimizer(Table):
    """The optimizer of a role."""

    name: Literal["sgd", "adam", "adamw", "lion", "rmsprop"] = key("sgd", "Update rule.")
    learning_rate: NonNegative = key(0.1, "Peak of the learning rate.")
    weight_decay: NonNegative = key(
        0.0, "Weight decay; sgd, adam and rmsprop add it to the gradient."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = key(
        0.9, "Momentum of sgd, b1 of adam and lion, decay of rmsprop."
    )
    nesterov: bool = key(False, "Nesterov's momentum, of sgd and adam.")
    clip_norm: Annotated[float, Field(gt=0)] | None = key(
        None, "Largest norm of the role's gradient."
    )
    decay: Literal["all", "kernels"] = key("all", "Parameters that decay.")
    schedule: Schedule = key(Schedule(), "Factor on the learning rate.")


class Pause(Table):
    """The rule by which a role is paused."""

    name: Literal["switokd"] | None = key(None, "Rule by which the role is paused.")
    watch: str | None = key(None, "Role that the rule compares with.")


class WeightRamp(Table):
    """A factor on a term's weight, as a function of the step."""

    name: Literal["linear", "sigmoid", "cosine", "piecewise"] | None = key(
        None, "Shape of the factor. None: constant 1."
    )
    steps: Natural = key(0, "Steps of a smooth ramp.")
    boundaries: Steps = key((), "Steps at which `piecewise` changes.")
    factors: Floats = key((), "Factors of `piecewise`, one more than boundaries.")


class TemperatureAnneal(Table):
    """A linear change of a term's temperature."""

    to: Annotated[float, Field(gt=0)] | None = key(None, "Temperature at the end. None: constant.")
    steps: Natural = key(0, "Steps until then, from the first step of the run.")


class Term(OpenTable):
    """A loss that a role minimises; the other keys are its scalars and layers."""

    loss: str = key("", "Python path of your own loss, FILE.py:NAME. Empty: the term's name.")
    toward: str | Names = key((), "Role or roles to compare with.")
    weight: float = key(1.0, "Factor on the mean over the batch.")
    temperature_squared: bool | None = key(None, "Multiply by T^2. None: as usual for the loss.")
    ramp: WeightRamp = key(WeightRamp(), "Factor on the weight.")
    from_step: Natural = key(0, "First step with the term; its ramp starts there.")
    until_step: Natural | None = key(
        None, "First step without the term. A role is paused while all its terms are off."
    )
    anneal: TemperatureAnneal = key(TemperatureAnneal(), "Change of the temperature.")

    @property
    def peers(self) -> tuple[str, ...]:
        """The roles of `toward`."""
        return (self.toward,) if isinstance(self.toward, str) else self.toward


class OnPolicy(Table):
    """The share of the batches whose texts a role completes itself."""

    max_new_tokens: Natural = key(0, "Tokens that the role draws for a text. 0: off.")
    share: Annotated[float, Field(ge=0, le=1)] = key(0.5, "Probability of such a batch.")
    temperature: NonNegative = key(1.0, "Temperature of the draws. 0: the most probable tokens.")
    top_p: Annotated[float, Field(gt=0, le=1)] = key(
        1.0, "Mass of the most probable tokens that are drawn."
    )


class Role(Table):
    """A player, or a critic between two players."""

    model: Model = key(Model(), "Network and its options.")
    input: str = key("image", "Entry of a batch to read: view of a pair, second of two tokenizers.")
    checkpoint: FilePath | None = key(None, "Folder of an export with the initial weights.")
    from_variant: str | None = key(None, "Earlier variant with the initial weights.")
    backbone: FilePath | None = key(None, "Export with the weights of a detector's backbone.")
    regions: str | None = key(None, "Role whose regions a detector scores. None: its own.")
    keep_layers: Ints = key((), "Layers of a transformer's checkpoint to keep. (): all.")
    remat: bool = key(False, "Recompute activations in the backward pass: less memory.")
    cache: bool = key(False, "Compute the outputs of a frozen role once for each example.")
    optimizer: Optimizer = key(Optimizer(), "Optimizer.")
    terms: Annotated[dict[str, Term], Removable] = key(
        {}, "Losses that it minimises. {}: it is frozen."
    )
    between: Names = key((), "Two players; the role is then a critic.")
    moves: Literal["first", "both"] = key("first", "Players that a critic trains.")
    pause: Pause = key(Pause(), "Rule by which the role is paused.")
    adapters: Annotated[dict[str, Adapter], Removable] = key({}, "Features added for its terms.")
    on_policy: OnPolicy = key(OnPolicy(), "Texts that it completes itself.")


class Select(Table):
    """The choice among the members of a sweep."""

    role: str = key("student", "Role whose metric decides for players that learn together.")
    metric: str | None = key(None, "Metric on the validation split. None: the task's first.")


class Halving(Table):
    """Successive halving: points of a sweep that are dropped during the run."""

    steps: Steps = key((), "Steps after which the worst points are dropped.")
    share: Annotated[float, Field(gt=0, lt=1)] = key(0.5, "Share of the points that continues.")


class Config(Table):
    """An experiment."""

    seed: Natural = key(0, "Seed of initial weights, dropout, order and augmentation.")
    num_steps: Positive = key(1000, "Steps of the run.")
    batch_size: Positive = key(128, "Examples of a step, over all devices.")
    accumulate: Positive = key(1, "Parts of a device's batch that are computed in turn.")
    eval_batch_size: Positive = key(256, "Examples of an evaluation batch, over all devices.")
    log_every: Natural = key(50, "Steps between logged metrics. 0: only at the end.")
    eval_every: Natural = key(0, "Steps between validations. 0: only at the end.")
    checkpoint_every: Natural = key(500, "Steps between checkpoints. 0: only at the end.")
    grad_norm_every: Natural = key(0, "Steps between logged norms of gradients. 0: never.")
    keep_checkpoints: Positive = key(2, "Checkpoints to keep.")
    keep_best: bool = key(False, "Also keep each member's state at its best validation.")
    parallel: Literal["pmap", "mesh"] = key("pmap", "Way to use several devices.")
    shard_parameters: bool = key(
        False, "Divide parameters and optimizer over the devices; needs parallel=mesh."
    )
    devices: Natural = key(0, "Number of devices. 0: all.")
    members_per_program: Natural = key(0, "Members trained together. 0: as many as fit in memory.")
    members_over_devices: bool = key(True, "Spread members over devices if they divide evenly.")
    members_in_turn: bool = key(False, "Compute members one after another, not stacked.")
    steps_per_dispatch: Natural = key(0, "Steps per call of the device. 0: 1 on a CPU, else 8.")
    precision: Literal["float32", "bfloat16"] = key("float32", "Type of the computation.")
    tensorboard: bool = key(True, "Write TensorBoard events.")
    ece_bins: Positive = key(15, "Bins of the expected calibration error.")
    title: str = key("", "Name of a variant in reports.")
    data: Data = key(Data(), "Data set.")
    roles: Annotated[dict[str, Role], Removable] = key({}, "Name -> player or critic.")
    variants: dict[str, dict[str, Any] | None] = key({}, "Name -> keys that it overrides.")
    sweep: dict[str, Any] = key({}, "Path of a number -> list of values or distribution.")
    sweep_mode: Literal["grid", "zip", "random"] = key("grid", "Combination of the values.")
    sweep_members: Positive = key(16, "Points of a random sweep; each has all seeds.")
    sweep_seed: Natural = key(0, "Seed of a random sweep.")
    halving: Halving = key(Halving(), "Points that are dropped during the run.")
    select: Select = key(Select(), "Choice among the members of a sweep.")
