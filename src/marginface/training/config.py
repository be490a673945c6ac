"""Everything a training run can be told, in one tree of dataclasses: the YAML files and the command line."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from marginface.backbones.options import Option
from marginface.embedder import ModelConfig
from marginface.errors import InputError
from marginface.filenames import check_file_name
from marginface.loading.loader import DataConfig
from marginface.ranges import check_numbers
from marginface.softmax.kernels import Precision
from marginface.training.loggers import LoggerName, check_logger
from marginface.training.mixing import OldConfig
from marginface.training.optim import OptimConfig

RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass
class MarginConfig:
    """The margin.

    Args:
        name: its name; `marginface margins` lists them
        options: the paper's own parameters, such as {m: 0.5, s: 64}
        warmup_epochs: the margin m grows linearly from 0 over these epochs; a fraction is fine
    """

    name: str = "arcface"
    options: dict[str, Option] = field(default_factory=dict)
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "margin")


@dataclass
class SoftmaxConfig:
    """The softmax over all identities.

    Args:
        engine: streaming never holds a batch x classes matrix; dense is the plain formula, for study
        sample_rate: share of the other classes that take part in a step (Partial FC); 1 = all
        sub_centers: weights per class, of which the nearest counts (sub-center ArcFace)
        label_smoothing: probability spread evenly over all classes
        focal_gamma: rows are weighted by (1 - p)^gamma; 0 = off
        precision: of the products with the class weights; auto: bfloat16 where the machine multiplies it natively and
            there are 8192 classes or more, else float32
        compile: let torch.compile fuse the passes over the class weights; needs a C++ compiler (on a GPU: Triton) and
            half a minute once
    """

    engine: Literal["streaming", "dense"] = "streaming"
    sample_rate: float = 1.0
    sub_centers: int = 1
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    precision: Precision = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "softmax", sample_rate="(0, 1]", sub_centers="[1, 1000]", label_smoothing="[0, 1)")


@dataclass
class LoopConfig:
    """How long, and how often what is done. Steps count updates of the weights.

    Args:
        epochs: passes over the training set; a fraction is fine
        log_every: steps between rows of metrics.csv
        eval_every: steps between evaluations; 0 = only at the end
        keep_models: keep the model of every evaluation in checkpoints/step-N, for evaluate --all-checkpoints
        checkpoint_every: steps between checkpoints to resume from; 0 = only at the end
        keep_checkpoints: so many of the last ones stay; with 2, a damaged one has one before it
        async_checkpoints: write them while the next steps are computed, from a copy in the host's memory, instead of
            letting all processes wait
        skip_steps: so many steps whose gradient is not finite are left out before the run stops
        logger: where the rows of metrics.csv go besides TensorBoard: wandb is Weights & Biases
        profile: so many steps are watched by torch.profiler and written to trace.json, for Perfetto; 0 = off
        accumulate: each update sums the gradients of this many equal parts of the batch, to save memory
        activation_checkpointing: the backward pass computes the network's blocks a second time instead of keeping what
            they computed: less memory, a third more arithmetic, the same result
        freeze: parts of the network that stay as they are, with commas between: stem, trunk (all but the embedding
            layer), embedding, or names of modules, such as layer1
        freeze_norms: batch norms keep the statistics they have; for fine-tuning with few images
        patience: stop after so many evaluations in a row without a better mean accuracy, and keep the best model;
            0 = off
        refit: for small sets: at the end, refit the embedding layer by linear discriminant analysis with this
            shrinkage, such as 0.05; 0 = off
    """

    epochs: float = 10.0
    log_every: int = 20
    eval_every: int = 0
    keep_models: bool = False
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    async_checkpoints: bool = False
    skip_steps: int = 10
    logger: LoggerName = "tensorboard"
    profile: int = 0
    accumulate: int = 1
    activation_checkpointing: bool = False
    freeze: str = ""
    freeze_norms: bool = False
    patience: int = 0
    refit: float = 0.0

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("accumulate", "log_every", "keep_checkpoints"), "[1, 1e9]")
        check_numbers(self, "train", epochs="(0, 1e6]", refit="[0, 1]", **counts)
        check_logger(self.logger)
        if self.patience and not self.eval_every:
            raise InputError("train.patience counts evaluations: give train.eval_every with it")


@dataclass
class TrainerConfig:
    """Where it runs (Lightning Fabric).

    Args:
        accelerator: what computes
        devices: how many processes on this machine, one a device; torchrun decides itself
        num_nodes: how many machines
        timeout: seconds after which a process that does not answer is given up, and the run stops
        sync_batch_norm: batch norms use the statistics of all processes' images together; on GPUs
        shard_backbone: split the network's weights over the processes (FSDP2) instead of copying them to each: for
            networks whose copy would not fit
        precision: of the backbone; the margin and softmax keep float32 accuracy
        compile: let torch.compile fuse the backbone's operations; costs 20-60 s once
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    timeout: float = 600.0
    sync_batch_norm: bool = False
    shard_backbone: bool = False
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "trainer", devices="[1, 4096]", num_nodes="[1, 100000]", timeout="(0, 1e6]")
        if self.shard_backbone and (self.compile or self.precision == "16-mixed"):
            raise InputError("trainer.shard_backbone goes with neither trainer.compile nor 16-mixed: take bf16-mixed")


@dataclass
class Config:
    """One training run.

    Args:
        name: the run's folder below `output`; a recipe's name by default
        summary: what the run is, in one line
        expect: the result to expect, and who published it
        output: where runs are kept
        init_from: fine-tuning: the folder of a model or of a run, or a published checkpoint; it decides on `model`
            and data.size
        init_head: with init_from: class weights start as the means of the people's embeddings, or at random
        seed: of the weights, the order and augmentation of the images, and random margins
        data: what is learned from
        old: what must not be forgotten meanwhile
        model: the network
        margin: the margin
        softmax: how the softmax over all identities is computed
        optim: how the weights move
        train: how long, and how often what is done
        trainer: where it runs
    """

    name: str = ""
    summary: str = ""
    expect: str = ""
    output: str = "runs"
    init_from: str = ""
    init_head: Literal["class_means", "random"] = "class_means"
    seed: int = 42
    data: DataConfig = field(default_factory=DataConfig)
    old: OldConfig = field(default_factory=OldConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    margin: MarginConfig = field(default_factory=MarginConfig)
    softmax: SoftmaxConfig = field(default_factory=SoftmaxConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        check_numbers(self, "", seed="[0, 1e18]")
        check_numbers(self.model, "model", num_features="[1, 65536]")
        if self.name:
            check_file_name(self.name, "name")
        if self.data.batch_size % self.train.accumulate:
            raise InputError(
                f"data.batch_size {self.data.batch_size} cannot be split into train.accumulate "
                f"{self.train.accumulate} equal parts"
            )
        if self.train.activation_checkpointing and self.trainer.compile:
            raise InputError("torch.compile cannot see through train.activation_checkpointing: leave one of them out")
        if self.train.patience and not self.data.val:
            raise InputError("train.patience needs benchmarks to judge by: give them with data.val")


def recipe_files() -> dict[str, Path]:
    """Name -> YAML file of every recipe that comes with the package."""
    return {file.stem: file for file in sorted(RECIPES.glob("*.yaml"))}


def recipe_rows() -> Iterable[tuple[str, dict[str, Any]]]:
    """(name, content) of every recipe, for listing."""
    for name, file in recipe_files().items():
        yield name, yaml.safe_load(file.read_text(encoding="utf-8"))


def recipe_or_file(word: str) -> str:
    """What follows --config: a recipe's name becomes its file, anything else must be a file."""
    recipes = recipe_files()
    if word in recipes:
        return str(recipes[word])
    if not Path(word).is_file():
        raise InputError(f"--config {word}: neither a file nor a recipe; the recipes are {', '.join(recipes)}")
    return word
