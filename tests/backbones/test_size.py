"""Parameters and multiply-adds against published tables and the manifest."""

import functools

import pytest

import golden_backbones as golden
from golden_files import entry
from marginface.backbones.size import Size, measure

# millions of parameters, billions of multiply-adds: arcface_torch's, AdaFace's and ElasticFace's tables
PUBLISHED = [
    ("iresnet18", {}, 24.03, 2.61),
    ("iresnet34", {}, 34.14, 4.46),
    ("iresnet50", {}, 43.59, 6.31),
    ("iresnet100", {}, 65.16, 12.09),
    ("iresnet200", {}, 118.83, 23.42),
    ("iresnet18", {"se": True}, 24.03 + 0.08, 2.61),
    ("iresnet34", {"se": True}, 34.14 + 0.16, 4.46),
    ("iresnet50", {"se": True}, 43.59 + 0.22, 6.31),
    ("iresnet100", {"se": True}, 65.16 + 0.37, 12.09),
    ("iresnet200", {"se": True}, 118.83 + 0.75, 23.42),
    ("ir18", {}, 24.02, 2.60),
    ("ir34", {}, 34.13, 4.45),
    ("ir50", {}, 43.59, 6.30),
    ("ir101", {}, 65.15, 12.08),
    ("mobilefacenet", {}, 2.06, 0.44),
    ("mobilefacenet-large", {}, 6.31, 1.82),
    ("mobilefacenet-se", {"num_features": 128}, 1.05, 0.29),
    ("mobilefacenet-se", {"num_features": 256}, 1.12, 0.29),
    ("vit-tiny", {}, 19, 1.5),
    ("vit-small", {}, 76, 5.8),
    ("vit-base", {}, 114, 11.4),
    ("vit-large", {}, 256, 25.3),
    ("vit-huge", {}, 756, 89),
    ("sphere20", {"image_size": (112, 112)}, 24.5, None),
    ("sphere36", {"image_size": (112, 112)}, 34.6, None),
]

SHAPES = ("num_features", "se", "mlp_ratio", "patch_size")  # the options that change the count


@functools.cache
def size_of(name: str, options: tuple[tuple[str, object], ...]) -> Size:
    """Several references are the same network."""
    return measure(name, **dict(options))


@pytest.mark.parametrize(
    ("name", "options", "parameters", "macs"),
    [pytest.param(*row, marks=[pytest.mark.slow] if row[2] > golden.LIGHT / 1e6 else []) for row in PUBLISHED],
)
def test_published_size(name: str, options: dict[str, object], parameters: float, macs: float | None) -> None:
    size = size_of(name, tuple(options.items()))
    assert size.parameters / 1e6 == pytest.approx(
        parameters, abs=0.01, rel=8e-3 if parameters == int(parameters) else 3e-3
    )
    assert macs is None or size.macs / 1e9 == pytest.approx(macs, abs=0.01, rel=1e-2)


@pytest.mark.parametrize("name", golden.BY_DAY)
def test_macs_are_the_references(name: str) -> None:
    ours, options = golden.ours(name)
    macs = entry(name)["macs_per_image"]
    attention = 0
    if ours.startswith("vit"):  # the reference's count leaves the two products of attention out
        given = entry(name)["hyper_parameters"]
        tokens = (given["img_size"] // given["patch_size"]) ** 2
        attention = 2 * given["depth"] * tokens**2 * given["embed_dim"]
    decisive = {key: value for key, value in options.items() if key in SHAPES}
    assert size_of(ours, tuple(decisive.items())).macs == macs["conv"] + macs["linear"] + attention
