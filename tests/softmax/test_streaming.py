"""The streaming engine against dense autograd in float64: every margin, every option, all reference inputs."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings

from golden_files import arrays, entries, entry
from marginface.softmax import streaming
from marginface.softmax.kernels import product
from softmax_cases import (
    BINARY_MARGINS,
    SOFTMAX_MARGINS,
    VARIANTS,
    batch,
    head_for,
    own_labels,
    train_steps,
    worst,
)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SOFTMAX_MARGINS)
def test_equals_dense(name: str, variant: str) -> None:
    options = VARIANTS[variant]
    case = batch(sub_centers=options.get("sub_centers", 1))
    dense = head_for(name, case.weight_CD, engine="dense", **options)
    expected = train_steps(dense, case.x_ND, case.labels_N)
    wide = head_for(name, case.weight_CD, block_size=5, **options)
    assert worst(train_steps(wide, case.x_ND, case.labels_N), expected) <= 1e-10
    single = head_for(name, case.weight_CD.float(), block_size=5, **options)
    assert worst(train_steps(single, case.x_ND.float(), case.labels_N), expected) <= 1e-5


@pytest.mark.parametrize("variant", ["plain", "filter", "true", "straight_through"])
@pytest.mark.parametrize("name", BINARY_MARGINS)
def test_one_vs_rest_equals_dense(name: str, variant: str) -> None:
    options = VARIANTS[variant]
    case = batch()
    expected = train_steps(head_for(name, case.weight_CD, engine="dense", **options), case.x_ND, case.labels_N)
    wide = head_for(name, case.weight_CD, block_size=5, **options)
    # dense rounds softplus above 20, as F.softplus does: exp(−20) = 2e-9
    assert worst(train_steps(wide, case.x_ND, case.labels_N), expected) <= 1e-9
    single = head_for(name, case.weight_CD.float(), block_size=5, **options)
    assert worst(train_steps(single, case.x_ND.float(), case.labels_N), expected) <= 1e-5


@pytest.mark.parametrize("name", SOFTMAX_MARGINS)
def test_bfloat16_products(name: str) -> None:
    case = batch(num_rows=64, num_features=512, num_classes=1000)
    shrink = {"softmax": 64, "sphereface": 4}  # logits of 10 to 100, as all others have
    x_ND = case.x_ND / shrink.get(name, 1)
    expected = train_steps(head_for(name, case.weight_CD, engine="dense"), x_ND, case.labels_N, 1)
    head = head_for(name, case.weight_CD.float(), precision="bfloat16", block_size=300)
    found = train_steps(head, x_ND.float(), case.labels_N, 1)
    assert worst(found, expected) <= 5e-3


def test_tf32_is_switched_on_for_the_products_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = batch(num_rows=64, num_features=128, num_classes=500)
    seen = set()

    def watched(*arguments: object) -> torch.Tensor:
        seen.add(torch.get_float32_matmul_precision())
        return product(*arguments)

    monkeypatch.setattr(streaming, "product", watched)
    before = torch.get_float32_matmul_precision()
    expected = train_steps(head_for("arcface", case.weight_CD, engine="dense"), case.x_ND, case.labels_N, 1)
    head = head_for("arcface", case.weight_CD.float(), precision="tf32", block_size=200)
    assert worst(train_steps(head, case.x_ND.float(), case.labels_N, 1), expected) <= 2e-2
    assert seen == {"medium"}
    assert torch.get_float32_matmul_precision() == before


def unique_inputs() -> list[str]:
    """Entries of the reference set whose x, labels and weights no earlier entry has."""
    seen, unique = set(), []
    for name in entries("heads/"):
        if not {"x", "labels", "weight"} <= entry(name)["arrays"].keys():
            continue
        data = arrays(name)
        key = hash((data["x"].tobytes(), data["labels"].tobytes(), data["weight"].tobytes()))
        if key not in seen:
            seen.add(key)
            unique.append(name)
    return unique


@pytest.mark.parametrize("entry_name", unique_inputs())
def test_reference_inputs(entry_name: str) -> None:
    """Cosines at ±1 and 0, θ + m beyond π, norms from 0.7 to 120, label −1: all margins, streaming against dense."""
    data = arrays(entry_name)
    # 5e-4 rad from 0 and π a cosine's last bit changes the derivative of an angle by 1e-16 / 5e-4² = 4e-10
    tolerance = 1e-9 if entry(entry_name)["kind"] == "edge" else 1e-10
    x_ND, labels_N, weight_CD = (torch.from_numpy(data[key]) for key in ("x", "labels", "weight"))
    labels_N = own_labels(labels_N, len(weight_CD))
    for name in SOFTMAX_MARGINS:
        dense, streaming = head_for(name, weight_CD, engine="dense"), head_for(name, weight_CD, block_size=7)
        expected = train_steps(dense, x_ND, labels_N, 1)
        assert worst(train_steps(streaming, x_ND, labels_N, 1), expected) <= tolerance, name


@pytest.mark.parametrize("block_size", [1, 2, 36, 37, 38, None])
def test_block_size_does_not_matter(block_size: int | None) -> None:
    case = batch()
    expected = train_steps(head_for("curricularface", case.weight_CD, block_size=7), case.x_ND, case.labels_N)
    head = head_for("curricularface", case.weight_CD, block_size=block_size)
    assert worst(train_steps(head, case.x_ND, case.labels_N), expected) <= 1e-12


def test_bit_for_bit_deterministic() -> None:
    case = batch()
    first, second = (
        train_steps(head_for("arcface", case.weight_CD.float()), case.x_ND.float(), case.labels_N) for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_upstream_gradient_of_any_sign() -> None:
    case = batch()
    for name in ("arcface", "circle"):
        head = head_for(name, case.weight_CD)
        x_ND = case.x_ND.clone().requires_grad_()
        (plain,) = torch.autograd.grad(head.eval()(x_ND, case.labels_N), x_ND)
        (scaled,) = torch.autograd.grad(-3 * head(x_ND, case.labels_N), x_ND)
        torch.testing.assert_close(scaled, -3 * plain)


def test_gradcheck() -> None:
    case = batch(num_rows=4, num_features=3, num_classes=5)
    for name in ("cosface", "curricularface", "magface", "sphereface"):
        head = head_for(name, case.weight_CD, block_size=2, margin_options={"margin_grad": "true"}).eval()
        x_ND = (case.x_ND / 8).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, head=head: head(x, case.labels_N), (x_ND,), atol=1e-6)


@pytest.mark.parametrize("name", SOFTMAX_MARGINS + BINARY_MARGINS)
@given(
    exponent=st.integers(-20, 20),
    kind=st.sampled_from(["random", "zero", "own class", "opposite"]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    precision=st.sampled_from(["auto", "bfloat16"]),
)
@example(exponent=9, kind="random", dtype=torch.bfloat16, precision="auto")
@example(exponent=10, kind="opposite", dtype=torch.float32, precision="auto")
@example(exponent=17, kind="random", dtype=torch.float32, precision="bfloat16")
@example(exponent=8, kind="random", dtype=torch.bfloat16, precision="bfloat16")
@example(exponent=20, kind="random", dtype=torch.float32, precision="bfloat16")
@settings(max_examples=12, deadline=None)
def test_always_finite(name: str, exponent: int, kind: str, dtype: torch.dtype, precision: str) -> None:
    case = batch(num_rows=6, num_features=8, num_classes=5)
    own_ND = case.weight_CD[case.labels_N.clamp_min(0)]
    x_ND = {"random": case.x_ND, "zero": 0 * own_ND, "own class": own_ND, "opposite": -own_ND}[kind]
    x_ND = (x_ND * 10.0**exponent).clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)
    head = head_for(name, case.weight_CD.float(), block_size=2, precision=precision)
    with torch.autocast("cpu", torch.bfloat16):
        found = train_steps(head, x_ND, case.labels_N)
    overflows = dtype == torch.float16 and 0 < float(x_ND.norm(dim=1).min()) < 0.1  # as a GradScaler expects it to
    assert all(value.isfinite().all() for key, value in found.items() if not (overflows and key[0] == "x"))
    if kind == "zero" and name != "softmax":  # which does not normalise
        assert not found["x0"].any()


@pytest.mark.parametrize("exponent", range(0, 21, 2))
@pytest.mark.parametrize("name", ["sphereface", "softmax"])
def test_long_logits_are_finite(name: str, exponent: int) -> None:
    """Blocks whose logits are longer than float32 can tell apart, on the path of label smoothing and of margins."""
    for seed in range(4):
        case = batch(num_rows=12, num_features=8, num_classes=40, seed=seed)
        head = head_for(name, case.weight_CD.float(), block_size=7, label_smoothing=0.1 if name == "softmax" else 0)
        found = train_steps(head, case.x_ND.float() * 10.0**exponent, case.labels_N)
        assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("name", SOFTMAX_MARGINS + BINARY_MARGINS)
@pytest.mark.parametrize("labels", [[0], [-1], [-1, -1], [0, 0]])
def test_one_class_one_row_none_labelled(name: str, labels: list[int]) -> None:
    case = batch(num_rows=len(labels), num_features=4, num_classes=1)
    found = train_steps(head_for(name, case.weight_CD.float()), case.x_ND.float(), torch.tensor(labels))
    assert all(value.isfinite().all() for value in found.values())
    if max(labels) < 0:
        assert found["loss0"] == 0
        assert not found["x0"].any()
        assert not found["weight0"].any()
