"""Images -> embeddings. The one public model object: `marginface.load` gives it, evaluation and demos use it."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from marginface.backbones import create_backbone
from marginface.backbones.fast import FastPath, tensors
from marginface.backbones.options import Option
from marginface.backbones.preprocess import normalise
from marginface.backbones.proven import Shapes, check_room, create_proven
from marginface.errors import InputError
from marginface.files import replace_folder
from marginface.readers.containment import Bounds
from marginface.tensor_file import TensorFile, open_tensors, write_tensors
from marginface.untrusted import read_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "marginface 1"
LARGEST_SIDE = 1024  # pixels


@dataclass
class ModelConfig:
    """The network.

    Args:
        backbone: its name; `marginface backbones` lists them
        num_features: length of an embedding
        options: the backbone's own options, such as {dropout: 0.4}
    """

    backbone: str = "small"
    num_features: int = 512
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := self.options.keys() & {"name", "num_features"}:
            raise InputError(f"model.options.{min(taken)} is no option: give model.backbone and model.num_features")


@dataclass
class Preprocessing:
    """What the network expects of an image, and how its authors use the embeddings.

    Args:
        size: height in pixels, and width where `width` is None
        width: of networks that are not square, such as sphere20's 112x96
        mean: of the input, (x - mean) / std with x in 0..255, RGB
        std: of the same
        flip: the embedding of the mirror image is "add"ed, "concat"enated behind, or "none"
        quality: "norm" where the length of an embedding tells the image's quality
        template: where alignment puts the five points: "arcface" or "openvino", see `faces.template`
    """

    size: int = 112
    mean: float = 127.5
    std: float = 127.5
    width: int | None = None
    flip: Literal["add", "concat", "none"] = "add"
    quality: Literal["norm"] | None = None
    template: Literal["arcface", "openvino"] = "arcface"

    def __post_init__(self) -> None:
        for name, side in (("size", self.size), ("width", self.width)):
            if (type(side) is not int or not 1 <= side <= LARGEST_SIDE) and (name, side) != ("width", None):
                raise InputError(f"preprocessing.{name} is {side!r:.60}: give pixels from 1 to {LARGEST_SIDE}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if type(value) not in (int, float) or not abs(value) <= 1e6:
                raise InputError(f"preprocessing.{name} is {value!r:.60}: give a number, such as 127.5")
        if self.std < 1e-6:
            raise InputError(f"preprocessing.std is {self.std}: give a number above 0, such as 127.5")
        if self.flip not in ("add", "concat", "none"):
            raise InputError(f"preprocessing.flip is {self.flip!r:.60}: choose add, concat or none")
        if self.quality not in ("norm", None):
            raise InputError(f"preprocessing.quality is {self.quality!r:.60}: choose norm or null")
        if self.template not in ("arcface", "openvino"):
            raise InputError(f"preprocessing.template is {self.template!r:.60}: choose arcface or openvino")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.size, self.width or self.size


class Embedder:
    """A backbone with everything needed to use it: preprocessing, flip fusion, and notes about its origin.

    Examples:
        >>> model = Embedder.create(ModelConfig("iresnet18"))
        >>> model.embed(np.zeros((2, 112, 112, 3), np.uint8)).shape
        (2, 512)
    """

    def __init__(
        self,
        backbone: nn.Module,
        config: ModelConfig,
        preprocessing: Preprocessing | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        self.backbone, self.config = backbone, config
        self.preprocessing = preprocessing or Preprocessing()
        self.notes = notes or {}
        self._fast: FastPath | None = None

    @classmethod
    def create(cls, config: ModelConfig, preprocessing: Preprocessing | None = None) -> "Embedder":
        """With random weights, or timm's where its option `pretrained` asks for them.

        Raises InputError for an unknown backbone or option, and for one that would not fit into memory.
        """
        check_room(config.backbone, config.num_features, config.options)
        backbone = create_backbone(config.backbone, num_features=config.num_features, **config.options)
        # its weights are its own from now on
        options = {name: value for name, value in config.options.items() if name != "pretrained"}
        return cls(backbone, dataclasses.replace(config, options=options), preprocessing)

    @property
    def device(self) -> torch.device:
        return next((value.device for value in tensors(self.backbone)), torch.device("cpu"))

    def to(self, device: str | torch.device) -> "Embedder":
        self.backbone.to(device)
        return self

    @property
    def path(self) -> str:
        """The way `embed` went last time, such as "bfloat16, channels last"; "" before the first.

        "bfloat16, compiled (34.1 s)" tells what making and trying ways cost this process.
        """
        if self._fast is None:
            return ""
        return f"{self._fast.name} ({self._fast.seconds:.1f} s)" if self._fast.seconds >= 0.05 else self._fast.name

    def length(self, flip: bool = True) -> int:
        """Numbers in an embedding: twice num_features where the mirror image's is put behind."""
        return self.config.num_features * (2 if flip and self.preprocessing.flip == "concat" else 1)

    def embed(
        self, images: np.ndarray | Sequence[np.ndarray], *, flip: bool = True, batch_size: int = 64
    ) -> np.ndarray:
        """RGB uint8 (N, H, W, 3), or a list of (H, W, 3), -> float32 (N, length), L2-normalised.

        With `flip` the mirror image takes part as the network's authors have it (`preprocessing.flip`): most add
        both embeddings before normalising. A square image gives a narrower network its middle columns.
        Goes the fastest way that stays within cosine 0.9995 of float32; `path` tells which, `raw` is exact.
        Raises InputError for another type or size, and where a network's numbers overflow.
        """
        chunks = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        parts = [unit(x) for x in self.raw(chunks, flip, fast=len(images))]
        embeddings = np.concatenate(parts) if parts else np.empty((0, self.length(flip)), np.float32)
        check_embeddings(embeddings)
        return embeddings

    def quality(self, images: np.ndarray | Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        """float32 (N,): the lengths of the embeddings without mirror images; more is better (MagFace, AdaFace).

        Raises InputError for a network whose lengths mean nothing.
        """
        if self.preprocessing.quality != "norm":
            raise InputError(
                f"the length of this {self.config.backbone}'s embeddings does not tell quality; take a network "
                f"trained with MagFace or AdaFace"
            )
        chunks = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
        norms = [np.linalg.norm(x, axis=1) for x in self.raw(chunks, flip=False)]
        return np.concatenate(norms) if norms else np.empty(0, np.float32)

    @torch.no_grad()
    def raw(
        self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True, *, fast: int | None = None
    ) -> Iterator[np.ndarray]:
        """The same for batches one by one, not normalised: float32 (n, length); norms tell quality.

        fast: how many images there will be, where float32 is not called for: see `embed`.
        """
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            for chunk in chunks:
                x = torch.from_numpy(self.checked(chunk)).to(self.device, non_blocking=True)
                yield self._forward(x, flip, fast).float().cpu().numpy()
        finally:
            self.backbone.train(was_training)

    def _forward(self, images: torch.Tensor, flip: bool, fast: int | None) -> torch.Tensor:
        x = normalise(images, self.preprocessing.mean, self.preprocessing.std)
        network = self.backbone if fast is None else self._fastest(x, fast)
        embeddings: torch.Tensor = network(x)
        if not flip or self.preprocessing.flip == "none":
            return embeddings
        mirrored = network(x.flip(-1))
        return torch.cat([embeddings, mirrored], 1) if self.preprocessing.flip == "concat" else embeddings + mirrored

    def _fastest(self, x: torch.Tensor, images: int) -> Callable[[torch.Tensor], torch.Tensor]:
        if self._fast is None or self._fast.is_stale():
            self._fast = FastPath(self.backbone)
        return self._fast.network(x, images)

    def checked(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """One array (n, height, width, 3), narrowed where the network is narrower than it is high."""
        height, width = self.preprocessing.image_size
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.shape not in ((height, width, 3), (height, max(height, width), 3)):
                raise InputError(
                    f"image {i} is {image.dtype} {image.shape}: the model takes RGB uint8 ({height}, {width}, 3); "
                    f"align faces first (marginface align)"
                )
        array = np.ascontiguousarray(images) if isinstance(images, np.ndarray) else np.stack(list(images))
        # ArcFace's square template is the older 112x96 one with 8 columns more at each side
        side = (array.shape[2] - width) // 2
        return np.ascontiguousarray(array[:, :, side : side + width])

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write model.safetensors and config.json; the folder is whole or absent.

        Raises InputError for a folder that exists, unless it is empty, or marginface wrote it and `overwrite` is set.
        """
        with replace_folder(folder, overwrite) as temporary:
            self.write(temporary)

    def write(self, folder: Path) -> None:
        """The same two files into a folder that is there."""
        write_tensors(folder / WEIGHTS, self.backbone.state_dict())
        (folder / CONFIG).write_text(json.dumps(self.description(), indent=2) + "\n", encoding="utf-8")

    def description(self) -> dict[str, Any]:
        """What config.json holds: network, preprocessing, conventions and notes."""
        return {
            "format": FORMAT,
            "model": dataclasses.asdict(self.config),
            "preprocessing": {"colour": "RGB", **dataclasses.asdict(self.preprocessing)},
            "notes": self.notes,
        }

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Embedder":
        """Read what `save` wrote. Raises InputError naming the file when it is missing, damaged or foreign.

        The folder may come from anybody: nothing is fetched, and nothing is allocated that its weights do not prove.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} holds no {CONFIG}: give the folder of a model, such as runs/quickstart/model")
        if not (folder / WEIGHTS).exists():
            raise InputError(f"{folder / WEIGHTS} is missing: the model folder is incomplete, copy it again")
        try:
            description = read_json(model_file(folder, CONFIG))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{folder / CONFIG} is not a marginface model description: {error}") from error
        with open_tensors(model_file(folder, WEIGHTS)) as weights:
            return cls.from_file(description, folder / CONFIG, weights).to(device)

    @classmethod
    def from_file(cls, description: Any, name: str | Path, weights: TensorFile) -> "Embedder":
        """The model that `description`, from the file `name`, says of these weights. Raises InputError as `load`."""
        embedder = cls.unfilled(description, name, weights.shapes, weights.path)
        weights.fill(embedder.backbone)
        return embedder

    @classmethod
    def unfilled(cls, description: Any, name: str | Path, shapes: Shapes, where: str | Path) -> "Embedder":
        """The same with room for the weights, whose shapes and place `where` are given; the caller reads them in."""
        try:
            model, preprocessing, notes = _parsed(description)
            size = preprocessing.image_size
            backbone = create_proven(model.backbone, model.num_features, model.options, size, shapes, where)
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(str(where)) else f"{name}: {error}") from error
        model.options.pop("pretrained", None)
        return cls(backbone, model, preprocessing, notes)


def model_file(folder: Path, name: str) -> Path:
    """A file of a model's folder. Raises InputError for a symbolic link that leads out of it.

    The Hugging Face Hub's cache links from `snapshots/REVISION` to `blobs` beside it, which is followed.
    """
    path, cache = folder / name, folder.absolute().parents[1:2]
    blobs = [one / "blobs" for one in cache if folder.absolute().parent.name == "snapshots"]
    if path.is_symlink() and not Bounds(folder, *(one for one in blobs if not one.is_symlink())).holds(path):
        raise InputError(f"{path} is a symbolic link that leads out of the model's folder; put the file itself there")
    return path


def _parsed(description: Any) -> tuple[ModelConfig, Preprocessing, dict[str, Any]]:
    """Network, conventions and notes of a description that anybody may have written."""
    if not isinstance(description, dict) or description.get("format", FORMAT) != FORMAT:
        raise InputError(f"it is not a marginface model description, whose format is {FORMAT!r}")
    parts = []
    for key, kind in (("model", ModelConfig), ("preprocessing", Preprocessing), ("notes", None)):
        part = description.get(key, None if kind else {})
        if not isinstance(part, dict):
            raise InputError(f"it is not a marginface model description: {key} is {part!r:.60}")
        known = {field.name for field in dataclasses.fields(kind)} | {"colour"} if kind else part.keys()
        if unknown := part.keys() - known:
            raise InputError(f"{key} has {min(unknown)!r:.60}, which this version of marginface does not know")
        parts.append(dict(part))
    model, preprocessing, notes = parts
    if preprocessing.pop("colour", "RGB") != "RGB":
        raise InputError("preprocessing.colour is not RGB, which all models here take")
    if not isinstance(model.get("options", {}), dict) or "backbone" not in model:
        raise InputError("it is not a marginface model description: model needs backbone, num_features and options")
    return ModelConfig(**model), Preprocessing(**preprocessing), notes


def check_embeddings(embeddings: np.ndarray) -> None:
    """Raise InputError, naming the first, unless all of (N, D) are finite: weights may be, and still overflow."""
    if len(bad := np.flatnonzero(~np.isfinite(embeddings).all(1))):
        raise InputError(
            f"the network gives NaN or infinity for image {bad[0]} ({len(bad)} of {len(embeddings)}): its weights are "
            f"too large or never trained; take another model"
        )


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    normed: np.ndarray = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return normed


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
