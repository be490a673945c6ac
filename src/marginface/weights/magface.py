"""MagFace: {epoch, arch, state_dict, optimizer}, trained under DDP or DataParallel.

Its pixels are BGR in [0, 1] without a mean. That cannot be folded into the first convolution: the convolution
pads with zeros, which stand for black here and would stand for grey there. So mean and std stay preprocessing,
and only the channels are turned round.
"""

from marginface.weights.base import Family, Usage

FAMILY = Family(
    name="magface",
    prefixes=("features.",),
    layouts=("iresnet",),
    usage=Usage(mean=0.0, std=255.0, flip="none", quality="norm"),
    bgr=True,
    options={
        "bn_eps": 2e-5,
        "bn_momentum": 0.9,
        "dropout": 0.4,
        "channel_dropout": True,
        "freeze_scale": False,
        "init": "kaiming",
    },
    heads={"parallel_fc.weight": False, "fc.weight": True},
)
