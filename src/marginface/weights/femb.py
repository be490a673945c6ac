"""alexkrz's and jonasgrebe's face embeddings: Lightning checkpoints, RGB, batch norms as MagFace's.

Their network leaves out its last batch norm for a single image; that quirk is not followed.
"""

from marginface.weights import magface
from marginface.weights.base import Family

FAMILY = Family(
    name="femb",
    prefixes=("backbone.",),
    layouts=("iresnet",),
    options=magface.FAMILY.options,
    with_head=True,
    heads={"header.weight": False, "header.kernel": True},
)
