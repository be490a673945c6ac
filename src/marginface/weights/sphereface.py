"""clcarwin's sphereface_pytorch: sphere20a with its classifier inside, BGR 112x96, flipped embedding appended."""

from marginface.weights.base import Family, Usage

FAMILY = Family(
    name="sphereface",
    prefixes=("",),
    layouts=("sphere",),
    usage=Usage(std=128.0, flip="concat"),
    bgr=True,
    heads={"fc6.weight": True},
)
