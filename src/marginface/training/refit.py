"""After training on a small set: the embedding layer once more, in closed form. Called by `finish`."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from marginface.errors import InputError

COMPONENTS = 400  # principal components of the features that are kept before the within-class covariance is inverted
MEMORY = 4e9  # bytes of features
NO_PAIR = "train.refit needs people with two images or more, and there is none; leave it out"


def refit_embedding(
    backbone: nn.Module, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]], shrinkage: float
) -> None:
    """Replaces the last linear layer by regularised linear discriminant analysis of its inputs.

    A network that has learned a few thousand people by heart separates them along directions in which strangers
    differ little. Its features are still good: directions are weighed by how people differ against how pictures
    of one person do, square root of between / total (Fisher 1936; the two covariances as in Ioffe 2006).

    batches: gives float images (n, 3, H, W) and int64 labels (n,) of the whole set. Features of an image and its mirror
    image are averaged. shrinkage: share of the identity in the within-class covariance.
    Raises InputError where nobody has two images, and as `check_refit` does.
    """
    linear, norm = _tail(backbone)
    features, labels = _features(backbone, linear, batches)
    centre = features.mean(0)
    matrix = discriminants(features - centre, labels, shrinkage, linear.out_features)
    with torch.no_grad():
        linear.weight.copy_(matrix.T)
        norm.running_mean, norm.running_var = matrix.T @ centre, torch.full((linear.out_features,), 1 - norm.eps)
        for parameter, value in ((linear.bias, 0.0), (norm.weight, 1.0), (norm.bias, 0.0)):
            if parameter is not None:
                parameter.fill_(value)


def check_refit(backbone: nn.Module, labels: np.ndarray) -> None:
    """Raise InputError where `refit_embedding` would, before the training. labels: int64 (n,), of the whole set.

    That is where the network does not end in a linear layer and a batch norm, where nobody has two images, or where
    the features would not fit into memory.
    """
    linear, _ = _tail(backbone)
    if len(labels) * linear.in_features * 4 > MEMORY:
        raise InputError(
            f"train.refit keeps {linear.in_features} numbers of {len(labels)} images in memory, more than "
            f"{MEMORY / 1e9:.0f} GB: it is meant for small training sets, leave it out"
        )
    if np.bincount(labels[labels >= 0]).max(initial=0) < 2:
        raise InputError(NO_PAIR)


def discriminants(features: Tensor, labels: Tensor, shrinkage: float, dimensions: int) -> Tensor:
    """Centred features (n, d), labels (n,) -> (d, dimensions): projections in which people are told apart best."""
    kept = min(COMPONENTS, *features.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        basis = torch.svd_lowrank(features, q=kept, niter=2)[2]
    x = (features @ basis).double()
    within, total = _covariances(x, labels)
    within = (1 - shrinkage) * within + shrinkage * within.trace() / kept * torch.eye(kept, dtype=x.dtype)
    root = torch.linalg.cholesky(within)
    whitened = torch.linalg.solve_triangular(
        root, torch.linalg.solve_triangular(root, total, upper=False).T, upper=False
    )
    values, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
    # in these coordinates the pictures of one person have unit covariance, so all of them have `values`
    weights = ((values - 1).clamp(min=0) / values.clamp(min=1e-12)).sqrt()
    directions = torch.linalg.solve_triangular(root.T, vectors * weights, upper=True).flip(1)[:, :dimensions]
    directions = torch.nn.functional.pad(directions, (0, dimensions - directions.shape[1]))
    return basis @ directions.float()


def _covariances(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Within people, from those with two images or more, and in total."""
    counts = torch.bincount(labels)
    means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add_(0, labels, x) / counts.clamp(min=1)[:, None]
    several = counts[labels] > 1
    if not several.any():
        raise InputError(NO_PAIR)
    inside = (x - means[labels])[several]
    return inside.T @ inside / (int(several.sum()) - int((counts > 1).sum())), x.T @ x / len(x)


@torch.no_grad()
def _features(
    backbone: nn.Module, linear: nn.Linear, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> tuple[Tensor, Tensor]:
    """The inputs of `linear`, mean of image and mirror image: float32 (n, d), and labels (n,)."""
    seen: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    backbone.eval()
    found, labels = [], []
    try:
        for images, batch_labels in batches():
            backbone(images)
            backbone(images.flip(-1))
            found.append((seen[-2] + seen[-1]) / 2)
            seen.clear()
            labels.append(batch_labels)
    finally:
        hook.remove()
    return torch.cat(found), torch.cat(labels)


def _tail(backbone: nn.Module) -> tuple[nn.Linear, nn.BatchNorm1d]:
    leaves = [module for module in backbone.modules() if isinstance(module, nn.Linear | nn.BatchNorm1d)]
    if len(leaves) < 2 or not isinstance(leaves[-2], nn.Linear) or not isinstance(leaves[-1], nn.BatchNorm1d):
        raise InputError("train.refit needs a network that ends in a linear layer and a batch norm; leave it out")
    return leaves[-2], leaves[-1]
