"""NormFace (Wang et al., ACM MM 2017, arXiv:1704.06369); CocoLoss (arXiv:1710.00870) is the same function."""

from typing import Unpack

from marginface.margins.base import Margin, MarginOptions


class NormFace(Margin):
    """logit_j = s·cos θ_j for every class: normalised softmax, no margin."""

    def __init__(self, s: float = 30.0, **options: Unpack[MarginOptions]) -> None:
        super().__init__(s, **options)
