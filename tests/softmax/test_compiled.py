"""compile=True: the same functions traced, so the same results; few compilations; a plain answer without a compiler."""

from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch._inductor.config

from marginface.errors import InputError
from marginface.softmax import MarginSoftmax, workspace
from softmax_cases import Batch, batch, head_for, train_steps, worst

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "arcface": ("arcface", {}),
    "softmax, not normalised": ("softmax", {}),
    "bfloat16": ("cosface", {"precision": "bfloat16"}),
    "sampled": ("arcface", {"sample_rate": 0.5}),
    "bending": ("curricularface", {"label_smoothing": 0.1}),
    "bending, bfloat16": ("arcnegface", {"precision": "bfloat16"}),
    "bending by masks": ("sv-softmax", {"unlabelled": "negatives"}),
    "filter": ("arcface", {"margin_options": {"interclass_filter": 0.1}}),
    "scale from norm": ("sphereface", {}),
    "without softmax": ("sphereface2", {}),
    "without softmax, bent by autograd": ("sphereface2", {"margin_options": {"margin_grad": "true"}}),
}


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> torch._dynamo.testing.CompileCounterWithBackend:
    """What torch.compile reads from the functions, run as it was read: to generate code takes seconds for each."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    traced: dict[Any, Any] = {}

    def trace(function: Any) -> Any:
        return traced.setdefault(function, torch.compile(function, dynamic=True, backend=counter))

    monkeypatch.setattr(workspace, "compile_pass", trace)
    return counter


def pair(case: Batch, name: str, options: dict[str, Any]) -> tuple[MarginSoftmax, MarginSoftmax]:
    """Uncompiled and compiled."""
    plain, compiled = (head_for(name, case.weight_CD, block_size=15, compile=way, **options) for way in (False, True))
    return plain, compiled


def fused_steps(head: MarginSoftmax, case: Batch) -> dict[str, torch.Tensor]:
    """Three steps of a schedule with batches of other sizes."""
    settings = head.fuse_sgd(lr=0.1)
    for step in range(3):
        settings.lr = 0.1 / (1 + step)
        rows = slice(0, len(case.x_ND) - 5 * step)
        head(case.x_ND[rows].to(head.weight.dtype).requires_grad_(), case.labels_N[rows]).backward()
    return {"weight": head.weight.detach().double(), "momentum": head.get_buffer("momentum").double()}


@pytest.mark.parametrize("kind", CASES)
def test_traced_passes_equal_the_operations(kind: str, tracing: Any) -> None:
    name, options = CASES[kind]
    case = batch()
    if "precision" in options:
        case.weight_CD, case.x_ND = case.weight_CD.float(), case.x_ND.float()
    tolerance = 1e-4 if "precision" in options else 1e-12
    plain, compiled = pair(case, name, options)
    expected = train_steps(plain, case.x_ND, case.labels_N)
    assert worst(train_steps(compiled, case.x_ND, case.labels_N), expected) <= tolerance
    assert worst(fused_steps(compiled, case), fused_steps(plain, case)) <= tolerance
    assert tracing.frame_count > 0


def test_is_not_compiled_again_for_other_rates_batches_and_blocks(tracing: Any) -> None:
    case = batch()
    head = pair(case, "arcface", {})[1]
    fused_steps(head, case)
    assert tracing.frame_count == 4  # both passes of unit rows, radial part, update
    fused_steps(head, batch(num_classes=37, seed=1))
    assert tracing.frame_count == 4


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_here(*_: Any) -> Any:
        raise RuntimeError("g++ is not found")

    torch._dynamo.reset()
    monkeypatch.setattr(workspace, "compile_pass", lambda f: torch.compile(f, backend=nothing_here))
    case = batch()
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler .* leave the option out \(g\+\+ is not found\)"):
        pair(case, "arcface", {})[1](case.x_ND, case.labels_N)


@pytest.mark.slow  # half a minute of compiling
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["arcface", "curricularface", "sphereface2"])
def test_compiled_code(name: str, precision: str) -> None:
    case = batch(num_rows=64, num_features=128, num_classes=1000)
    case.weight_CD, case.x_ND = case.weight_CD.float(), case.x_ND.float()
    options = {"precision": precision}
    plain, compiled = pair(case, name, options)
    expected, found = fused_steps(plain, case), fused_steps(compiled, case)
    assert worst(found, expected) <= {"float32": 1e-6, "bfloat16": 1e-3}[precision]
    again = fused_steps(pair(case, name, options)[1], case)
    assert all(torch.equal(again[key], found[key]) for key in found)


@pytest.mark.slow  # imports the compiler
def test_no_compiler_on_this_machine(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    workspace.compile_pass.cache_clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    case = batch()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",)}),
        pytest.raises(InputError, match="leave the option out"),
    ):
        pair(case, "arcface", {})[1](case.x_ND, case.labels_N)
