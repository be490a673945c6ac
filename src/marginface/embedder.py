"""Images -> embeddings. The one public model object: `marginface.load` gives it, evaluation and demos use it."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from marginface.backbones import create_backbone
from marginface.backbones.fast import FastPath, tensors
from marginface.backbones.preprocess import normalise
from marginface.errors import InputError
from marginface.files import replace_folder
from marginface.untrusted import read_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# not Any: for that the command line's parser makes an object of any class that a value names
Option = bool | int | float | str | list[int] | list[float] | None


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
    """

    size: int = 112
    mean: float = 127.5
    std: float = 127.5
    width: int | None = None
    flip: Literal["add", "concat", "none"] = "add"
    quality: Literal["norm"] | None = None

    def __post_init__(self) -> None:
        if self.flip not in ("add", "concat", "none"):
            raise InputError(f"preprocessing.flip is {self.flip!r}: choose add, concat or none")
        if self.quality not in ("norm", None):
            raise InputError(f"preprocessing.quality is {self.quality!r}: choose norm or null")

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
        """With random weights. Raises InputError for an unknown backbone or option."""
        backbone = create_backbone(config.backbone, num_features=config.num_features, **config.options)
        return cls(backbone, config, preprocessing)

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
        Raises InputError for another type or size.
        """
        chunks = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        parts = [unit(x) for x in self.raw(chunks, flip, fast=len(images))]
        return np.concatenate(parts) if parts else np.empty((0, self.length(flip)), np.float32)

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
        """The same two files into a folder that is there. Raises InputError where the disk is full."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.backbone.state_dict().items()}
        try:
            save_file(weights, folder / WEIGHTS)
        except SafetensorError as error:
            raise InputError(f"{folder} could not be written ({error}): make room on the disk") from error
        (folder / CONFIG).write_text(json.dumps(self.description(), indent=2) + "\n", encoding="utf-8")

    def description(self) -> dict[str, Any]:
        """What config.json holds: network, preprocessing, conventions and notes."""
        return {
            "format": "marginface 1",
            "model": dataclasses.asdict(self.config),
            "preprocessing": {"colour": "RGB", **dataclasses.asdict(self.preprocessing)},
            "notes": self.notes,
        }

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Embedder":
        """Reads what `save` wrote. Raises InputError naming the file when it is missing, damaged or foreign."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} holds no {CONFIG}: give the folder of a model, such as runs/quickstart/model")
        try:
            description = read_json(folder / CONFIG)
        except ValueError as error:
            raise InputError(f"{folder / CONFIG} is not a marginface model description: {error}") from error
        embedder = cls.from_description(description, folder / CONFIG)
        load_weights(embedder.backbone, folder / WEIGHTS, embedder.config.backbone)
        return embedder.to(device)

    @classmethod
    def from_description(cls, description: Any, name: str | Path) -> "Embedder":
        """What `description` describes, with random weights. Raises InputError, naming `name`, where it is none."""
        try:
            model = ModelConfig(**description["model"])
            constants = {key: value for key, value in description["preprocessing"].items() if key != "colour"}
            preprocessing = Preprocessing(**constants)
            notes = dict(description.get("notes", {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{name} is not a marginface model description: {error}") from error
        embedder = cls.create(model, preprocessing)
        embedder.notes = notes
        return embedder


def load_weights(backbone: nn.Module, file: Path, name: str) -> None:
    """Strictly: every key present, none left over, all shapes equal; else InputError says what differs."""
    try:
        state = load_file(file)
        backbone.load_state_dict(state, strict=True)
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing: the model folder is incomplete, copy it again") from error
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}): copy it again") from error
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if len(str(error).splitlines()) > 1 else str(error)
        raise InputError(f"{file} does not hold a {name}: {first}") from error


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    normed: np.ndarray = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return normed


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
