"""Partial FC (An et al., CVPR 2022, arXiv:2203.15565): which classes take part in a step; `head.py` asks.

Shape legend: V labelled rows; C classes of this rank; S classes drawn.
"""

import torch
from torch import Tensor


def draw_scores(num_classes: int, seed: int, device: torch.device) -> Tensor:
    """Uniform scores (C,), from the seed alone."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(num_classes, generator=generator, device=device)


def choose_classes(scores_C: Tensor, labels_V: Tensor, num_sample: int) -> Tensor:
    """The classes that take part (S,), sorted: every label, then the highest scores up to `num_sample`.

    Args:
        scores_C: one random number below 1 for each class of this rank, without ties.
        labels_V: labels as class of this rank; anything negative belongs to another rank.
        num_sample: S, unless there are more distinct labels than that: then these alone.
    """
    num_classes = len(scores_C)
    if len(labels_V) > num_sample:  # only then must be known how many distinct ones there are, and be waited for
        positives: Tensor = torch.unique(labels_V[labels_V >= 0])
        if len(positives) >= num_sample:
            return positives
    last = torch.where(labels_V >= 0, labels_V, num_classes)  # one place more, for what belongs to another rank
    preferred_C = torch.cat((scores_C, scores_C.new_zeros(1))).index_fill_(0, last, 2.0)[:num_classes]
    highest = preferred_C.topk(num_sample, sorted=False)
    index_S: Tensor = highest.indices.sort().values
    return index_S


def columns_of(labels_V: Tensor, index_S: Tensor) -> Tensor:
    """Labels as position among the classes drawn (V,); −1 where the label belongs to another rank."""
    return torch.where(labels_V >= 0, torch.searchsorted(index_S, labels_V), -1)
