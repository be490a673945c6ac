"""Images -> embeddings. The one public model object: `marginface.load` gives it, evaluation and demos use it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from marginface.backbones import create_backbone
from marginface.backbones.preprocess import normalise
from marginface.errors import InputError
from marginface.files import replace_folder

WEIGHTS, CONFIG = "model.safetensors", "config.json"


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
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Preprocessing:
    """What the network expects of an image: side in pixels, and (x - mean) / std on 0..255 per RGB channel."""

    size: int = 112
    mean: float = 127.5
    std: float = 127.5


class Embedder:
    """A backbone with everything needed to use it: preprocessing, flip fusion, and notes about its origin.

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

    @classmethod
    def create(cls, config: ModelConfig, preprocessing: Preprocessing | None = None) -> "Embedder":
        """With random weights. Raises InputError for an unknown backbone or option."""
        backbone = create_backbone(config.backbone, num_features=config.num_features, **config.options)
        return cls(backbone, config, preprocessing)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def to(self, device: str | torch.device) -> "Embedder":
        self.backbone.to(device)
        return self

    def embed(
        self, images: np.ndarray | Sequence[np.ndarray], *, flip: bool = True, batch_size: int = 64
    ) -> np.ndarray:
        """RGB uint8 (N, H, W, 3), or a list of (H, W, 3), -> float32 (N, num_features), L2-normalised.

        With `flip` the embeddings of the image and of its mirror image are added before normalising, as the
        papers do. Raises InputError for another type or size.
        """
        chunks = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
        parts = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in self.raw(chunks, flip)]
        return np.concatenate(parts) if parts else np.empty((0, self.config.num_features), np.float32)

    @torch.no_grad()
    def raw(self, chunks: Iterable[np.ndarray | Sequence[np.ndarray]], flip: bool = True) -> Iterator[np.ndarray]:
        """The same for batches one by one, not normalised: float32 (n, num_features); norms tell quality."""
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            for chunk in chunks:
                x = torch.from_numpy(self._checked(chunk)).to(self.device, non_blocking=True)
                yield self._forward(x, flip).float().cpu().numpy()
        finally:
            self.backbone.train(was_training)

    def _forward(self, images: torch.Tensor, flip: bool) -> torch.Tensor:
        x = normalise(images, self.preprocessing.mean, self.preprocessing.std)
        embeddings: torch.Tensor = self.backbone(x)
        return embeddings + self.backbone(x.flip(-1)) if flip else embeddings

    def _checked(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        side = self.preprocessing.size
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.shape != (side, side, 3):
                raise InputError(
                    f"image {i} is {image.dtype} {image.shape}: the model takes RGB uint8 ({side}, {side}, 3); "
                    f"align faces first (marginface align)"
                )
        return np.ascontiguousarray(images) if isinstance(images, np.ndarray) else np.stack(list(images))

    def save(self, folder: str | Path) -> None:
        """Writes model.safetensors and config.json; the folder is whole or absent."""
        config = {
            "format": "marginface 1",
            "model": dataclasses.asdict(self.config),
            "preprocessing": {"colour": "RGB", **dataclasses.asdict(self.preprocessing)},
            "notes": self.notes,
        }
        weights = {name: value.detach().cpu().contiguous() for name, value in self.backbone.state_dict().items()}
        with replace_folder(folder) as temporary:
            try:
                save_file(weights, temporary / WEIGHTS)
            except SafetensorError as error:
                raise InputError(f"{folder} could not be written ({error}): make room on the disk") from error
            (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Embedder":
        """Reads what `save` wrote. Raises InputError naming the file when it is missing, damaged or foreign."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} holds no {CONFIG}: give the folder of a model, such as runs/quickstart/model")
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            model = ModelConfig(**config["model"])
            constants = {key: value for key, value in config["preprocessing"].items() if key != "colour"}
            preprocessing = Preprocessing(**constants)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / CONFIG} is not a marginface model description: {error}") from error
        embedder = cls.create(model, preprocessing)
        embedder.notes = config.get("notes", {})
        load_weights(embedder.backbone, folder / WEIGHTS, model.backbone)
        return embedder.to(device)


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


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
