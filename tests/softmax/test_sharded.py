"""1, 2, 3 and 4 processes (gloo) against one process on the dense engine in float64: every margin, every option."""

import multiprocessing

import pytest
import torch
from torch import Tensor

from golden_files import arrays, entries, entry, tolerance
from marginface.margins import create_margin
from marginface.softmax import MarginSoftmax
from marginface.softmax.sharded import shard_range
from softmax_cases import VARIANTS, batch, deviation, head_for, train_steps
from softmax_ranks import CASES, case_of, run_rank

SIZES = (1, 2, 3, 4)
Found = list[dict[str, dict[str, Tensor]]]  # of every rank, by case, by name
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["softmax_ranks"])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    """What all ranks found, by number of processes. Spawned once for all margins."""
    found = {}
    for size in SIZES:
        folder = tmp_path_factory.mktemp(f"ranks{size}")
        processes = [CONTEXT.Process(target=run_rank, args=(rank, size, folder)) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            if process.exitcode is None:
                process.kill()
        assert [process.exitcode for process in processes] == [0] * size
        found[size] = [torch.load(folder / f"{rank}.pt") for rank in range(size)]
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    """What one process finds with the dense engine in float64."""
    expected = {}
    for name, variant in CASES:
        case = case_of(variant)
        options = VARIANTS.get(variant, {})
        head = head_for(name, case.weight_CD, engine="dense", **options)
        expected[f"{name}-{variant}"] = train_steps(head, case.x_ND, case.labels_N)
    return expected


def whole(parts: list[dict[str, Tensor]], key: str) -> Tensor:
    """The global value: x and weights are split over the ranks, all else is the same on each."""
    if key.startswith("x"):
        return torch.cat([part[key] for part in parts]) / len(parts)
    if key.startswith(("weight", "bias")):
        return torch.cat([part[key] for part in parts])
    for part in parts:
        assert torch.equal(part[key], parts[0][key]), key
    return parts[0][key]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_independent_of_the_number_of_processes(
    name: str, variant: str, size: int, ranks: dict[int, Found], alone: dict[str, dict[str, Tensor]]
) -> None:
    case = f"{name}-{variant}"
    parts = [found[case] for found in ranks[size]]
    tolerance = {"float32": 3e-6}.get(variant, 1e-9)
    for key, expected in alone[case].items():
        assert deviation(whole(parts, key), expected) <= tolerance, key


@pytest.mark.parametrize("size", SIZES[1:])
def test_float32_too_is_independent_of_the_number_of_processes(size: int, ranks: dict[int, Found]) -> None:
    """To 1e-6; from float64 it is as far as one process is: a logit of 64 has a last bit of 4e-6."""
    for name, variant in CASES:
        if variant == "float32":
            case = f"{name}-{variant}"
            parts, one = [found[case] for found in ranks[size]], [found[case] for found in ranks[1]]
            for key in one[0]:
                assert deviation(whole(parts, key), whole(one, key)) <= 1e-6, (name, key)


@pytest.mark.parametrize("size", SIZES)
def test_fused_update(size: int, ranks: dict[int, Found]) -> None:
    case = batch()
    head = head_for("arcface", case.weight_CD)
    optimizer = torch.optim.SGD([head.weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        head(case.x_ND, case.labels_N).backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = torch.cat([found["fused"]["weight"] for found in ranks[size]])
    torch.testing.assert_close(weight, head.weight.detach())
    momentum = torch.cat([found["fused"]["momentum"] for found in ranks[size]])
    torch.testing.assert_close(momentum, optimizer.state[head.weight]["momentum_buffer"])


def test_initial_weights_do_not_depend_on_the_number_of_processes(ranks: dict[int, Found]) -> None:
    weights = [torch.cat([found["init"]["weight"] for found in ranks[size]]) for size in SIZES]
    assert weights[0].shape == (5000, 4)
    assert all(torch.equal(weight, weights[0]) for weight in weights)


@pytest.mark.parametrize("name", [name for name in entries("pfc/") if entry(name)["world_size"] > 1])
def test_equals_insightface(name: str, ranks: dict[int, Found]) -> None:
    data = arrays(name)
    for rank, found in enumerate(ranks[entry(name)["world_size"]]):
        for key, value in found[name].items():
            expected = torch.from_numpy(data[f"rank{rank}_{key}"]).reshape(value.shape)
            torch.testing.assert_close(value, expected, **tolerance(name))


@pytest.mark.parametrize(("num_classes", "size"), [(10, 3), (11, 2), (2, 4), (8, 8), (7, 1)])
def test_shares(num_classes: int, size: int) -> None:
    ranges = [shard_range(num_classes, rank, size) for rank in range(size)]
    assert [c for start, stop in ranges for c in range(start, stop)] == list(range(num_classes))
    lengths = [stop - start for start, stop in ranges]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


def test_one_process_is_the_same_code() -> None:
    assert MarginSoftmax(4, 10, create_margin("arcface")).shards.size == 1
