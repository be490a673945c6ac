"""The same global batch gives the same training on 1, 2 and 4 processes, and a run may change their number."""

import shutil
from typing import Any

import pytest
import torch

from people import write_people
from training_ranks import SAVED, STATEFUL, curves, join, processes

Found = dict[int, dict[str, Any]]
pytestmark = (
    pytest.mark.slow
)  # ten processes, a minute or two; daily, test_survive runs two and test_sharded up to four


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the first of 4, 1, 2 and 3 processes found; those of four left checkpoints to the others."""
    folder = tmp_path_factory.mktemp("processes")
    people = write_people(folder / "people")
    damaged = folder / "broken"
    shutil.copytree(people, damaged)
    (damaged / "p03" / "p03_0002.jpg").write_bytes(b"\xff\xd8 not a JPEG")
    found = {}
    for size in (4, 1, 2, 3):
        assert join(processes(size, curves, people, folder, size)) == [0] * size
        found[size] = torch.load(folder / f"{size}.pt")
        assert found[size]["size"] == size
    return found


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("margin", STATEFUL)
def test_same_loss_curve(margin: str, size: int, found: Found) -> None:
    alone, shared = found[1][margin], found[size][margin]
    assert len(set(alone.tolist())) > 40  # it does move
    assert float(((shared - alone) / alone).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", SAVED)
def test_saved_on_four_resumed_on_fewer(name: str, size: int, found: Found) -> None:
    expected, resumed = (found[n][f"saved-{name}"] for n in (4, size))
    assert float(((resumed - expected) / expected).abs().max()) < 1e-5
    for key, value in found[4][f"weights-{name}"].items():
        torch.testing.assert_close(found[size][f"weights-{name}"][key], value, rtol=1e-4, atol=1e-6)
