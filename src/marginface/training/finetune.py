"""Fine-tuning: the model a run starts from, what of it stays as it is, first class weights. For start and loop."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.backbones import Backbone
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.loading.loader import Loader
from marginface.softmax import MarginSoftmax
from marginface.training.mixing import MixedLoader
from marginface.weights import fill_head, load, load_head

IMAGES_PER_CLASS = 16  # more hardly move a mean, and a pass over millions of images would cost as much as training
CHUNK = 64
NEARER = 0.1  # by which a person's mean must be nearer, in cosine, to the own class weight than to another's
SPREAD = 0.5  # length of the random part of a sub-center, beside the mean's 1


def load_start(where: str | Path) -> Embedder:
    """The model in a folder (ours, or a run's), in a published checkpoint, or on the Hugging Face Hub; it takes RGB.

    Raises InputError for anything else, and for networks that do not take square images.
    """
    start = load(where)
    height, width = start.preprocessing.image_size
    if height != width:
        raise InputError(f"{where}: {start.config.backbone} takes {height}x{width} images, training takes square ones")
    return start


class Frozen:
    """Parts of a network that training leaves as they are, bit for bit.

    freeze: separated by commas, names of modules, such as "layer1", or what every network has: "stem", all before the
    first block; "embedding", all behind the last map of features; "trunk", all before that, the stem included. Their
    weights get no gradient, their batch norms keep their statistics, their dropout is off. norms: all batch norms keep
    their statistics (weight and bias still learn).
    Raises InputError for a name that there is not, or when nothing would be left to learn.
    """

    def __init__(self, backbone: Backbone, freeze: str, norms: bool = False) -> None:
        parts = [part for prefix in filter(None, freeze.split(",")) for part in _named(backbone, prefix.strip())]
        for part in parts:
            part.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise InputError(f"train.freeze {freeze} leaves nothing of the network to learn; name fewer parts")
        self._still = [part for part in parts if isinstance(part, nn.Module)]
        if norms:
            self._still += [
                module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
            ]

    def hold(self) -> None:
        """Puts them into evaluation mode: to be called after every `train()` of the network."""
        for module in self._still:
            module.eval()


def _named(backbone: Backbone, name: str) -> list[nn.Module | nn.Parameter]:
    """What a word of train.freeze stands for. Raises InputError for none."""
    named = {**dict(backbone.named_modules()), **dict(backbone.named_parameters())}
    above = [*dict(backbone.named_children()), *(one for one, _ in backbone.named_parameters(recurse=False))]
    parts = {
        "stem": backbone.stem_parts,
        "trunk": [one for one in above if one not in backbone.embedding_parts],
        "embedding": backbone.embedding_parts,
    }
    names = parts.get(name) or [name]
    if all(one in named and one for one in names):
        return [named[one] for one in names]
    learned = [one for one, child in backbone.named_children() if list(child.parameters())]
    raise InputError(f"train.freeze: the network has no part {name!r}; it has {', '.join([*parts, *learned])}")


class ClassMeans:
    """The people of a set as a model sees them: `sums` (C, D) of unit embeddings, and moments of their norms.

    Up to IMAGES_PER_CLASS images of each. Of several processes each takes a share; `sums` and `moments` are then to
    be added up over them.
    """

    def __init__(self, model: Embedder, loader: Loader | MixedLoader, rank: int = 0, world_size: int = 1) -> None:
        self.sums = torch.zeros(loader.reader.num_classes, model.length(flip=False), device=model.device)
        self.moments = torch.zeros(3, dtype=torch.float64, device=model.device)
        rows = first_of_each(loader.reader.labels, IMAGES_PER_CLASS)[rank::world_size]
        for start in range(0, len(rows), CHUNK):
            images, labels = loader.plain(rows[start : start + CHUNK])
            if len(images):
                embeddings = torch.from_numpy(next(model.raw([images], flip=False)))
                self._add(embeddings.to(self.sums), torch.from_numpy(labels))

    def _add(self, x: Tensor, labels: Tensor) -> None:
        self.sums.index_add_(0, labels.to(x.device), F.normalize(x))
        norms = x.norm(dim=1).double()
        self.moments += torch.stack([torch.ones_like(norms), norms, norms**2]).sum(1)

    @property
    def norm(self) -> tuple[float, float]:
        """Mean and standard deviation of the norm of an embedding."""
        count, first, second = self.moments.tolist()
        mean = first / max(count, 1)
        return mean, max(second / max(count, 1) - mean**2, 0.0) ** 0.5


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` images of every class, ascending. labels: int64 (N,)."""
    order = np.argsort(labels, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return np.sort(order[rank < count])


@torch.no_grad()
def take_published_head(head: MarginSoftmax, where: str | Path, means: ClassMeans) -> bool:
    """Class weights, and the margin's statistics, that came with the model `where`, if they are of the same people.

    As many classes may be other people, so the means are asked too. Returns False, and leaves the head alone, where
    there are none or they are others'.
    """
    state = load_head(where)
    return "weight" in state and same_people(state["weight"], means.sums) and fill_head(head, state)


def same_people(weight: Tensor, sums: Tensor) -> bool:
    """Whether class weights (C, D) point to where the people of `sums` (C, D) are."""
    if weight.shape != sums.shape:
        return False
    weight, found = weight.to(sums), sums.abs().sum(1) > 0
    own = F.cosine_similarity(sums, weight)[found].mean()
    others = F.cosine_similarity(sums, weight.roll(1, 0))[found].mean()
    return bool(own > others + NEARER)


@torch.no_grad()
def start_head(head: MarginSoftmax, means: ClassMeans) -> None:
    """Class weights become the class means, of unit length; sub-centers spread about the mean.

    The shorter a weight, the further a step turns it: those of length 0.2 that suit a random start would lose the
    means within a few steps. Classes without a readable image keep their random weights. AdaFace's statistics begin
    at the model's own norms.
    """
    classes = means.sums[head.shards.start : head.shards.stop].repeat_interleave(head.sub_centers, 0)
    direction = F.normalize(classes.to(head.weight))
    if head.sub_centers > 1:
        direction = F.normalize(direction + SPREAD * F.normalize(head.weight))
    found = classes.abs().sum(1, keepdim=True) > 0
    head.weight.copy_(torch.where(found, direction, head.weight))
    statistics = dict(head.margin.named_buffers())
    if {"batch_mean", "batch_std"} <= statistics.keys():
        for name, value in zip(("batch_mean", "batch_std"), means.norm, strict=True):
            statistics[name].fill_(value)
