"""Every importer against a file in the exact layout its project publishes, and the recorded embeddings."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import golden_backbones as golden
from golden_files import entry
from marginface.weights import import_checkpoint

CLASSES = 6
State = dict[str, Tensor]


def class_weights(name: str, transposed: bool) -> Tensor:
    rows = torch.arange(CLASSES * golden.embeddings(name).shape[1]).float().view(CLASSES, -1)
    return rows.T.contiguous() if transposed else rows


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def optimiser() -> torch.optim.Optimizer:
    """With a step behind it, so that it holds momenta."""
    parameter = nn.Parameter(torch.ones(2))
    sgd = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(2)
    sgd.step()
    return sgd


def insightface(name: str, state: State) -> Any:
    return state


def insightface_resume(name: str, state: State) -> Any:
    return {
        "epoch": 3,
        "global_step": 1200,
        "state_dict_backbone": state,
        "state_dict_softmax_fc": {"weight": class_weights(name, False)},
        "state_optimizer": optimiser().state_dict(),
        "state_lr_scheduler": {"last_epoch": 1200, "base_lrs": [0.1]},
    }


def adaface(name: str, state: State) -> Any:
    head = {
        "head.kernel": class_weights(name, True),
        "head.t": torch.zeros(1),
        "head.batch_mean": torch.tensor([20.5]),
        "head.batch_std": torch.tensor([90.25]),
    }
    return {
        "epoch": 25,
        "global_step": 1000,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": prefixed("model.", state) | head,
        "callbacks": {"checkpoint": {"best_model_score": torch.tensor(0.97)}},
        "optimizer_states": [optimiser().state_dict()],
        "hyper_parameters": {"arch": "ir_18", "head": "adaface", "gpus": 2, "args": Namespace(m=0.4)},
    }


def cvlface(name: str, state: State) -> Any:
    return prefixed("net.", state)


def magface_distributed(name: str, state: State) -> Any:
    weights = prefixed("features.module.", state) | {"parallel_fc.weight": class_weights(name, False)}
    return {"epoch": 25, "arch": "iresnet18", "state_dict": weights, "optimizer": optimiser().state_dict()}


def magface_parallel(name: str, state: State) -> Any:
    weights = prefixed("module.features.", state) | {"module.fc.weight": class_weights(name, True)}
    return {"epoch": 25, "arch": "iresnet18", "state_dict": weights, "optimizer": optimiser().state_dict()}


def femb(name: str, state: State) -> Any:
    return {
        "state_dict": prefixed("backbone.", state) | {"header.weight": class_weights(name, False)},
        "hyper_parameters": {"lr": 0.02},
        "datamodule_hyper_parameters": {"root_dir": Path("casia_webface")},
    }


def openvino(name: str, state: State) -> Any:
    head = {"fc_angular.weight": class_weights(name, True)}
    return {"epoch": 8, "state_dict": prefixed("module.", state | head), "optimizer": optimiser()}


def openvino_released(name: str, state: State) -> Any:
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    return {"model": {key: value for key, value in state.items() if key not in counters}}


def sphereface(name: str, state: State) -> Any:
    return state


Writer = Callable[[str, State], Any]
WRITERS: dict[str, list[Writer]] = {
    "arcface_torch": [insightface, insightface_resume],
    "ElasticFace": [insightface],
    "AdaFace": [adaface],
    "CVLface": [cvlface],
    "MagFace": [magface_distributed, magface_parallel],
    "face-embeddings": [femb],
    "grib0ed0v": [openvino, openvino_released],
    "sphereface": [sphereface],
}
SOURCES = {
    "arcface_torch": "insightface",
    "ElasticFace": "insightface",
    "AdaFace": "adaface",
    "CVLface": "cvlface",
    "MagFace": "magface",
    "face-embeddings": "femb",
    "grib0ed0v": "openvino",
    "sphereface": "sphereface",
}


def project(name: str) -> str:
    return next(project for project in WRITERS if project in entry(name)["reference"])


def cases() -> list[Any]:
    """Every network of every project in each of its containers; by day the smallest of each."""
    smallest: dict[str, str] = {}
    for name in sorted(golden.ENTRIES, key=lambda name: entry(name)["parameters"]):
        smallest.setdefault(project(name), name)
    return [
        pytest.param(name, writer, marks=[] if smallest[project(name)] == name else [pytest.mark.slow])
        for name in golden.ENTRIES
        for writer in WRITERS[project(name)]
    ]


@pytest.mark.parametrize(("name", "write"), cases())
@torch.no_grad()
def test_published_file_gives_the_recorded_embeddings(name: str, write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "downloaded"
    state = golden.state_dict(name, torch.float32)
    torch.save(write(name, state), path, _use_new_zipfile_serialization=write is not openvino)
    model = import_checkpoint(path)

    expected_name, expected_options = golden.ours(name)
    assert (model.source, model.backbone) == (SOURCES[project(name)], expected_name)
    assert model.num_features == expected_options.pop("num_features")
    for option, value in expected_options.items():
        if option != "mask_ratio":
            assert model.options.get(option, value) == value, option

    images = golden.images(name).float()
    if project(name) in ("AdaFace", "MagFace", "sphereface"):
        images = images.flip(1)  # the reference was given BGR; ours takes RGB
    output = model.build()(images).double().numpy()
    assert np.abs(output - golden.embeddings(name)).max() <= golden.tolerance(name, torch.float32)
    assert model.usage.image_size == tuple(entry(name)["input_shape"][2:])

    if write not in (insightface, cvlface, openvino_released, sphereface):
        assert torch.equal(model.head, class_weights(name, False))
    if write is adaface:
        assert {key: value.item() for key, value in model.head_state.items()} == {
            "t": 0,
            "batch_mean": 20.5,
            "batch_std": 90.25,
        }


@pytest.mark.parametrize(
    ("source", "mean", "std", "flip", "quality"),
    [
        ("insightface", 127.5, 127.5, "add", None),
        ("adaface", 127.5, 127.5, "add", "norm"),
        ("magface", 0, 255, "none", "norm"),
        ("openvino", 0, 255, "add", None),
        ("sphereface", 127.5, 128, "concat", None),
    ],
)
def test_each_project_keeps_its_conventions(
    source: str, mean: float, std: float, flip: str, quality: str | None
) -> None:
    from marginface.weights import SOURCES

    usage = SOURCES[source].usage
    assert (usage.mean, usage.std, usage.flip, usage.quality) == (mean, std, flip, quality)
    assert usage.template == ("openvino" if source == "openvino" else "arcface")
