"""Plain softmax: logits are raw products W·x (+ b), nothing normalised. Baseline and pre-training loss."""

from typing import Unpack

from marginface.margins.base import Margin, MarginOptions


class Softmax(Margin):
    """logit_j = x·w_j (+ b_j), scale 1. With `bias` the head owns b, a parameter of shape (C,)."""

    normalised = False

    def __init__(self, bias: bool = False, **options: Unpack[MarginOptions]) -> None:
        super().__init__(1.0, **options)
        self.bias = bias
