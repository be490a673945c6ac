"""`marginface plan`: prints the prediction of `softmax/plan.py`, and answers bad words with one sentence."""

import re

import pytest

from marginface import cli
from marginface.softmax.plan import HeadShape, plan


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, float]]:
    """The tables of memory (GiB), arithmetic (GFLOP) and traffic (MB)."""
    cli.main(["plan", *words])
    tables = capsys.readouterr().out.split("┏")[1:]
    rows = [re.findall(r"│ (\w[^│]*?) +│ +([\d,.]+) │", table) for table in tables]
    return [{name: float(value.replace(",", "")) for name, value in table} for table in rows]


def test_ten_million_classes_on_eight_devices(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--classes", "10e6", "--backbone", "small", "--devices", "8", "--batch", "128"]
    found = printed(capsys, *words)
    assert found[0]["class weights"] == found[0]["class optimiser"] == 2.384  # 10e6 · 512 · 4 bytes / 8 / 2^30
    assert found[0]["class gradient"] == 0
    assert found[1]["head"] == 40.960  # 8 · 10e6 · 512
    expected = plan(HeadShape(10_000_000, devices=8, batch=128), "small")
    for table, parts, unit in zip(
        found, (expected.memory, expected.flops, expected.wire), (2**30, 10**9, 10**6), strict=True
    ):
        together = table.pop("together")
        assert together == pytest.approx(sum(parts.values()) / unit, abs=6e-4)
        assert table == pytest.approx({name: value / unit for name, value in parts.items()}, abs=6e-4)


def test_every_option_reaches_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--classes=1e6", "--backbone=small", "--features=256", "--sub_centers=3", "--optimizer=adamw"]
    words += ["--sample_rate=0.1", "--fused=false", "--bfloat16=false", "--device=cpu", "--mixed_precision=false"]
    shape = HeadShape(
        1_000_000,
        256,
        sub_centers=3,
        optimizer="adamw",
        sample_rate=0.1,
        fused=False,
        bfloat16=False,
        device="cpu",
    )
    memory = printed(capsys, *words)[0]
    for name, value in plan(shape, "small", mixed_precision=False).memory.items():
        assert memory[name] == pytest.approx(value / 2**30, abs=6e-4), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes=10.5"], r"classes.*10\.5"),
        (["--classes=many"], r"classes.*many"),
        (["--classes=0"], r"at least 1"),
        ([], r"required.*classes"),
        (["--classes=10", "--optimizer=lion"], r"optimizer.*sgd"),
        (["--classes=10", "--sample_rate=2"], r"--sample_rate is 2: give a number that is above 0 and at most 1"),
        (["--classes=10", "--backbone=resnet"], r"resnet.*iresnet50"),
    ],
)
def test_bad_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", *words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
