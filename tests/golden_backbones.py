"""The reference networks' deterministic weights and input, after the manifest's `backbone_formula`."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden_files import FOLDER, arrays, entries, entry

INPUT = 1000003
OUTPUT_GRADIENT = 1000004
LIGHT = 30e6  # parameters; what is heavier runs at night

ENTRIES = entries("backbones/")
BY_DAY = [pytest.param(name, marks=[pytest.mark.slow] if entry(name)["parameters"] > LIGHT else []) for name in ENTRIES]


def layout(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Key, shape and role of every entry of the reference's state dict, in its order."""
    rows = json.loads((FOLDER / entry(name)["state_dict"]).read_text())
    return [(key, tuple(shape), role) for key, shape, _, role in rows]


def h32(n: int, index: int, seed: int) -> np.ndarray:
    """n numbers of [-1, 1): a 32-bit hash of the place, the tensor's index and the seed."""
    h = np.arange(1, n + 1, dtype=np.uint32) * np.uint32(2654435761)
    h += np.uint32(((index + 1) * 2246822519 + seed * 3266489917) % 2**32)
    h ^= h >> np.uint32(15)
    h *= np.uint32(2246822519)
    h ^= h >> np.uint32(13)
    h *= np.uint32(3266489917)
    h ^= h >> np.uint32(16)
    return h / 2147483648 - 1


def fill(role: str, shape: tuple[int, ...], index: int, seed: int) -> np.ndarray:
    if role == "counter":
        return np.zeros(shape, np.int64)
    x = h32(int(np.prod(shape)), index, seed).reshape(shape)
    if role in ("conv", "linear"):
        return x * np.sqrt(3 / np.prod(shape[1:]))
    if role in ("bn_weight", "ln_weight"):
        return 1 + 0.1 * x
    if role == "bn_var":
        return 1 + 0.5 * x**2
    if role == "prelu":
        return 0.25 + 0.1 * x
    return 0.1 * x


def state_dict(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The reference's filled state dict."""
    seed = entry(name)["seed"]
    state = {}
    for index, (key, shape, role) in enumerate(layout(name)):
        value = torch.from_numpy(np.asarray(fill(role, shape, index, seed)))
        state[key] = value.to(dtype) if value.is_floating_point() else value
    return state


def images(name: str, batch: int | None = None) -> Tensor:
    """The input batch, float64 (B, 3, H, W), in the reference's own channel order."""
    shape = entry(name)["input_shape"]
    b, c, r, q = np.ogrid[: batch or shape[0], : shape[1], : shape[2], : shape[3]]
    wave = 0.6 * np.sin(0.05 * r * (c + 1) + 0.07 * q + 1.3 * b + 0.4 * c)
    return torch.from_numpy(wave + 0.4 * h32(wave.size, INPUT, entry(name)["seed"]).reshape(wave.shape))


def embeddings(name: str) -> np.ndarray:
    """The recorded output before any normalisation, (B, D)."""
    recorded = arrays(name)
    output = recorded["output"].reshape(len(recorded["output"]), -1)
    return output * recorded["norm"] if "norm" in recorded else output


def tolerance(name: str, dtype: torch.dtype) -> float:
    """Largest difference of `embeddings(name)` allowed, by the manifest's rule."""
    scale = np.abs(embeddings(name)).max()
    words = entry(name)["tolerance"][str(dtype).removeprefix("torch.")]
    share = float(number(r"([\d.e-]+)\*output_max_abs", words))
    if dtype == torch.float64:
        return share * scale
    # the reference's own deviation is that of what it returns, for AdaFace the direction
    own = float(number(r"([\d.e-]+)\*reference_float32_max_abs_deviation", words))
    own *= entry(name)["reference_float32_max_abs_deviation"] / entry(name)["output_max_abs"]
    return max(share, own) * scale


def train_tolerance(name: str) -> float:
    """Largest difference in float64 after a training step, as a share of the largest number recorded."""
    return float(number(r"([\d.e-]+)\*max\|array\| in float64", entry(name)["train_mode"]["tolerance"]))


def number(pattern: str, words: str) -> str:
    """The one number in the manifest's words where the pattern says; a folder with other words is an error."""
    (found,) = re.findall(pattern, words)
    return found


def ours(name: str) -> tuple[str, dict[str, Any]]:
    """What the reference's network is called here, and its options."""
    reference, given = entry(name)["reference"], entry(name)["hyper_parameters"]
    network = reference.split()[-1] if "sphere20a" not in reference else "sphere20a"
    sizes = [given[key] for key in ("num_features", "embedding_size", "output_dim") if key in given]
    options: dict[str, Any] = {"num_features": (sizes or [512])[0]}
    if "VisionTransformer" in reference:
        return _vit(reference, given, options)
    if "MobileFaceNet" in network:
        return "mobilefacenet-se", options
    if match := re.fullmatch(r"iresnet(\d+)", network):
        if "MagFace" in reference or "face-embeddings" in reference:
            options |= {"bn_eps": 2e-5, "bn_momentum": 0.9, "dropout": 0.4, "channel_dropout": True}
            options |= {"freeze_scale": False, "init": "kaiming"}
        return f"iresnet{match[1]}", options | {"se": given.get("use_se", False)}
    if match := re.fullmatch(r"IR_(SE_)?(\d+)", network):
        return f"ir{match[2]}", options | {"se": bool(match[1])}
    names = {"get_mbf": "mobilefacenet", "get_mbf_large": "mobilefacenet-large", "sphere20a": "sphere20"}
    return names[network], options


def _vit(reference: str, given: dict[str, Any], options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    sizes = {(256, 12): "tiny", (512, 12): "small", (512, 24): "base", (768, 24): "large", (1024, 48): "huge"}
    options |= {"heads": given["num_heads"]} | {key: given[key] for key in ("mlp_ratio", "patch_size")}
    options["mask_ratio"] = None if "CVLface" in reference and not given["mask_ratio"] else given["mask_ratio"]
    return f"vit-{sizes[given['embed_dim'], given['depth']]}", options
