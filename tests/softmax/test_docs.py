"""Every Python block of docs/softmax.md runs, with fewer classes."""

import re
from pathlib import Path

import pytest
import torch

from marginface.softmax.plan import HeadShape, plan

TEXT = (Path(__file__).parents[2] / "docs" / "softmax.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT.replace("85_742", "1_000"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int) -> None:
    names = {"embeddings": torch.randn(4, 512, requires_grad=True), "labels": torch.tensor([3, 1, -1, 7])}
    exec(compile(BLOCKS[number], f"docs/softmax.md, block {number}", "exec"), names)
    assert names["head"].num_classes == 1000


def test_memory_of_ten_million_classes_is_what_plan_says() -> None:
    memory = plan(HeadShape(10_000_000, devices=8)).memory
    head = memory["head blocks"] + memory["head batch"] + memory["class norms"]
    assert f"| blocks and batch of the head | {head / 2**30:.2f} |" in TEXT
    assert f"| together | {sum(memory.values()) / 2**30:.2f} |" in TEXT
