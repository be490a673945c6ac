"""`timm:<name>`: any network of the timm library with an embedding neck. An optional extra."""

import itertools
import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marginface.backbones.blocks import Backbone, in_weight_precision
from marginface.errors import InputError
from marginface.optional_imports import load_library

PREFIX = "timm:"
# how options begin that make timm fetch or open other files, or that are this module's own
REFUSED = ("pretrained_", "checkpoint", "cache", "model", "self", "num_features")


class TimmBackbone(Backbone):
    """A timm network up to its last feature map, then BN, dropout, linear and BN as in iresnet.

    neck: "pool" averages as the network itself does, "flatten" keeps every place (as iresnet; more weights).
    pretrained: start from timm's published weights, which are fetched from the network.
    options: for timm's own builder, e.g. drop_path_rate; none that fetches or opens a file.
    """

    mean: Tensor
    std: Tensor
    embedding_parts = ("neck",)

    def __init__(
        self,
        model: str,
        num_features: int = 512,
        image_size: int = 112,
        neck: Literal["pool", "flatten"] = "pool",
        dropout: float = 0.0,
        pretrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(num_features, (image_size, image_size))
        timm = _timm(model)
        if neck == "flatten":
            options["global_pool"] = ""
        try:
            published = timm.get_pretrained_cfg(model)
            if published is not None and published.fixed_input_size:
                options["img_size"] = image_size
            self.trunk = timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
            # timm's weights expect pixels of [0, 1] less ImageNet's mean, over its deviation
            mean, std = (published.mean, published.std) if published else ((0.5,) * 3, (0.5,) * 3)
            self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
            width = self._width()
        except InputError:
            raise
        except Exception as error:  # of any kind: the options are for code that is not ours
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"timm cannot build {model} for {image_size} pixels with {options}: {reason}") from error
        self.stem_parts = _stem(self.trunk)
        self.neck = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Dropout(dropout),
            nn.Linear(width, num_features),
            nn.BatchNorm1d(num_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        return in_weight_precision(tuple(self.neck), self._features(x))

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.trunk((x * 0.5 + 0.5 - self.mean) / self.std)
        return features.flatten(1)

    @torch.no_grad()
    def _width(self) -> int:
        """Length of the flattened features: only running the trunk tells."""
        training = self.trunk.training
        self.trunk.eval()
        width = self._features(torch.zeros(1, 3, *self.image_size)).shape[1]
        self.trunk.train(training)
        return width


def _stem(trunk: nn.Module) -> list[str]:
    """The trunk's own parameters, such as position embeddings, and its children up to the first sequence of blocks."""
    children = list(trunk.named_children())
    blocks = nn.Sequential | nn.ModuleList
    names = [name for name, _ in itertools.takewhile(lambda child: not isinstance(child[1], blocks), children)]
    if not any(list(trunk.get_submodule(name).parameters()) for name in names):
        names = [name for name, _ in children[:1]]  # a stem that is a sequence itself
    return [f"trunk.{name}" for name in (*names, *(name for name, _ in trunk.named_parameters(recurse=False)))]


def _timm(model: str) -> Any:
    """The library, if it is there and knows `model`."""
    timm = load_library("timm", f"{PREFIX}{model:.100}")
    if not re.fullmatch(r"[\w.-]{1,100}", model) or not timm.is_model(model):
        similar = timm.list_models(f"*{re.sub(r'[^a-z0-9_]', '', model.split('.')[0])[:30]}*")[:8]
        hint = f"similar: {', '.join(similar)}" if similar else "see timm.list_models()"
        raise InputError(f"timm has no model {model!r:.100}; {hint}")
    return timm
