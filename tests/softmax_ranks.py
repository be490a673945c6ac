"""What every process of tests/softmax/test_sharded.py does: all margins on its share of the classes and rows."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from golden_files import arrays, entries, entry
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax, head
from softmax_cases import (
    BINARY_MARGINS,
    SOFTMAX_MARGINS,
    VARIANTS,
    Batch,
    batch,
    insightface_margin,
    margin_for,
    own_labels,
    train_steps,
)

CASES = [(name, "plain") for name in SOFTMAX_MARGINS + BINARY_MARGINS]
CASES += [("arcface", variant) for variant in VARIANTS if variant != "plain"]
CASES += [("sphereface", "smoothing"), ("curricularface", "filter"), ("softmax", "few_classes")]
CASES += [("arcface", "few_classes"), ("curricularface", "few_classes")]
CASES += [(name, "float32") for name in ("arcface", "curricularface", "adaface", "circle", "sphereface", "uniface")]


def case_of(variant: str) -> Batch:
    """24 rows divide by 1, 2, 3 and 4; 37 classes do not; 3 classes leave the last of 4 ranks without any."""
    num_classes = 3 if variant == "few_classes" else 37
    return batch(num_classes=num_classes, sub_centers=VARIANTS.get(variant, {}).get("sub_centers", 1))


def sharded_head(name: str, weight_CD: Tensor, group: dist.ProcessGroup | None, **options: Any) -> MarginSoftmax:
    """A head with this rank's rows of the weights."""
    sub_centers = options.get("sub_centers", 1)
    num_classes = len(weight_CD) // sub_centers
    margin = margin_for(name, num_classes, **options.pop("margin_options", {}))
    subject = MarginSoftmax(weight_CD.shape[1], num_classes, margin, process_group=group, **options)
    subject = subject.to(weight_CD.dtype)
    start, stop = subject.shards.start * sub_centers, subject.shards.stop * sub_centers
    subject.weight.data.copy_(weight_CD[start:stop])
    return subject


def run_rank(rank: int, size: int, folder: Path) -> None:
    """Process `rank` of `size`: saves what it found in `folder`."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = {f"{name}-{variant}": one_case(name, variant, rank, size) for name, variant in CASES}
    found["fused"] = fused_case(rank, size)
    torch.manual_seed(1)
    found["init"] = {"weight": MarginSoftmax(4, 5000, create_margin("arcface"), process_group=dist.group.WORLD).weight}
    golden = [name for name in entries("pfc/") if entry(name)["world_size"] == size > 1]
    found |= {name: golden_case(name, rank) for name in golden}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def own_rows(rows: Tensor, rank: int, size: int) -> Tensor:
    return rows.chunk(size)[rank]


def one_case(name: str, variant: str, rank: int, size: int) -> dict[str, Tensor]:
    case = case_of(variant)
    weight_CD = case.weight_CD.float() if variant == "float32" else case.weight_CD
    subject = sharded_head(name, weight_CD, dist.group.WORLD, block_size=5, **VARIANTS.get(variant, {}))
    x_ND, labels_N = (own_rows(rows, rank, size) for rows in (case.x_ND.to(weight_CD.dtype), case.labels_N))
    return train_steps(subject, x_ND, labels_N)


def fused_case(rank: int, size: int) -> dict[str, Tensor]:
    """Weights after three steps of the fused update."""
    case = batch()
    subject = sharded_head("arcface", case.weight_CD, dist.group.WORLD, block_size=5)
    subject.fuse_sgd(lr=0.1)
    for _ in range(3):
        subject(own_rows(case.x_ND, rank, size).requires_grad_(), own_rows(case.labels_N, rank, size)).backward()
    return {"weight": subject.weight.detach(), "momentum": subject.momentum}


def golden_case(name: str, rank: int) -> dict[str, Tensor]:
    """A recorded step of InsightFace's PartialFC_V2 on several ranks."""
    facts, data = entry(name), {key: torch.from_numpy(value) for key, value in arrays(name).items()}
    subject = MarginSoftmax(
        data["weight"].shape[1],
        len(data["weight"]),
        insightface_margin(facts["hyper_parameters"]),
        process_group=dist.group.WORLD,
        sample_rate=facts["sample_rate"],
        unlabelled="negatives",
    ).double()
    subject.weight.data.copy_(data["weight"][subject.shards.start : subject.shards.stop])
    # no permutation was recorded where the labels alone were as many as the sample
    head.draw_scores = lambda *_: data.get(f"rank{rank}_perm", torch.zeros(len(subject.weight)))
    x_ND = data["x"][rank].clone().requires_grad_()
    loss = subject(x_ND, own_labels(data["labels"][rank], len(data["weight"])))
    loss.backward()
    return {"loss": loss.detach(), "grad_x": x_ND.grad, "grad_weight": subject.weight.grad}
