"""The softmax engine: `MarginSoftmax` is the head that the training loop and users put behind a backbone."""

from marginface.softmax.head import MarginSoftmax
from marginface.softmax.update import FusedSGD

__all__ = ["FusedSGD", "MarginSoftmax"]
