"""What the importers share: how a family of checkpoints is described, and what an import hands back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from marginface.backbones import Backbone, create_backbone

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a published network expects of aligned RGB pixels v in 0..255, and how its authors use it.

    image_size: height and width. mean, std: the input is (v - mean) / std.
    flip: what the embedding of the mirrored image is for: "add" it, "concat"enate it, or "none".
    quality: "norm" where the length of the embedding tells the image's quality, else None.
    template: of the alignment, see `faces.template`.
    """

    image_size: tuple[int, int] = (112, 112)
    mean: float = 127.5
    std: float = 127.5
    flip: Literal["add", "concat", "none"] = "add"
    quality: Literal["norm"] | None = None
    template: Literal["arcface", "openvino"] = "arcface"


@dataclass(frozen=True, slots=True)
class Family:
    """Checkpoints of one project: how they are known by their keys, and what the keys do not say.

    prefixes: what stands before the backbone's keys; "" where they stand alone.
    layouts: which of `layouts.LAYOUTS` the project publishes.
    usage: the image size in it is replaced by the backbone's own.
    bgr: trained on BGR pixels; the first convolution is turned round on import, so the model takes RGB.
    options: of the backbone, where no key shows them.
    with_head: known by its prefix only where its class weights are there too, as others use the same prefix.
    heads: keys of the class weights, and whether they are stored (num_features, classes).
    head_state: what else belongs to the head, by the name the margin gives it.
    convert: a change of keys, for a project whose layout is not ours.
    """

    name: str
    prefixes: tuple[str, ...]
    layouts: tuple[str, ...]
    usage: Usage = field(default_factory=Usage)
    bgr: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    with_head: bool = False
    heads: Mapping[str, bool] = field(default_factory=dict)
    head_state: Mapping[str, str] = field(default_factory=dict)
    convert: Callable[[State], State] | None = None


@dataclass(slots=True)
class ImportedModel:
    """A published model in our layout: it takes RGB.

    source: the project. backbone, num_features, options: for `create_backbone`.
    state_dict: complete, float32 but for counters; `build` loads it.
    head: class weights (classes, num_features), or None. head_state: the margin's statistics (AdaFace).
    notes: what was changed on the way, a sentence each. partial: the table of keys that did not fit, or "".
    """

    source: str
    backbone: str
    num_features: int
    options: dict[str, Any]
    usage: Usage
    state_dict: State
    head: Tensor | None = None
    head_state: State = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    partial: str = ""

    def build(self) -> Backbone:
        """The backbone with the imported weights, in evaluation mode."""
        with torch.device("meta"):
            backbone = create_backbone(self.backbone, self.num_features, **self.options)
        backbone.load_state_dict(self.state_dict, assign=True)
        return backbone.eval()
