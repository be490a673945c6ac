"""What a run tells of itself: the rows, their truth, other loggers, the profiler's trace; and what that costs."""

import inspect
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import loggers as lightning

from marginface import cli
from marginface.errors import InputError
from marginface.margins import create_margin, list_margins
from marginface.softmax.dense import dense_products
from marginface.training import loggers, loop, monitor
from marginface.training.config import LoopConfig
from marginface.training.measures import head_columns, head_numbers, to_host
from marginface.training.monitor import COLUMNS, read_metrics
from people import write_people
from softmax_cases import SOFTMAX_MARGINS, batch, head_for

TINY = ["--model.backbone=small", "--model.options.width=4", "--model.num_features=16", "--data.batch_size=16"]


class Recorded:
    """In place of a Lightning logger: takes only what the real one takes, and remembers."""

    kind: ClassVar[type] = lightning.WandbLogger
    made: ClassVar[list["Recorded"]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        inspect.signature(self.kind).bind(*args, **options)
        self.options, self.rows, self.ended = options, [], ""
        self.made.append(self)

    def log_hyperparams(self, config: dict[str, Any]) -> None:
        self.config = config

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.rows.append({"step": step, **values})

    def finalize(self, status: str) -> None:
        self.ended = status


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorded, list[str]]:
    """A run of 12 steps, what Weights & Biases was told, and how often numbers were put together."""
    folder, asked = tmp_path_factory.mktemp("monitor"), []
    people = write_people(folder / "people")
    words = [f"--data.train={people}", "--data.val=[]", f"--output={folder / 'runs'}", "--name=a", *TINY]
    words += ["--margin.name=adaface", "--train.epochs=2", "--train.log_every=5", "--train.profile=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning, "WandbLogger", Recorded)
        patch.setattr(loggers, "find_spec", lambda name: name)
        patch.setattr(loop, "head_numbers", lambda head: asked.append("numbers") or head_numbers(head))
        patch.setattr(monitor, "memory", lambda device: asked.append("memory") or 1.5)
        cli.main(["train", *words, "--train.logger=wandb"])
    return folder / "runs" / "a", Recorded.made[-1], asked


def test_rows_and_columns(trained: tuple[Path, Recorded, list[str]]) -> None:
    rows = read_metrics(trained[0] / "metrics.csv")
    assert [row["step"] for row in rows] == ["5", "10", "12"]
    assert list(rows[0]) == [*COLUMNS, *head_columns(create_margin("adaface")), "margin_batch_mean", "margin_batch_std"]
    for row in rows:
        numbers = {name: float(value) for name, value in row.items()}
        assert numbers["target_cosine_p5"] <= numbers["target_cosine_p50"] <= numbers["target_cosine_p95"] <= 1
        assert 0 < numbers["norm_p5"] <= numbers["norm_p50"] <= numbers["norm_p95"]
        assert 0 <= numbers["easy"] <= 1 - numbers["hard"] <= 1
        assert numbers["gradient_norm"] > 0
        assert 0 <= numbers["data_wait"] <= 1
        assert numbers["memory"] == 1.5


def test_nothing_is_put_together_between_rows(trained: tuple[Path, Recorded, list[str]]) -> None:
    assert sorted(trained[2]) == ["memory"] * 3 + ["numbers"] * 3


def test_another_logger_is_told_the_same(trained: tuple[Path, Recorded, list[str]]) -> None:
    folder, wandb, _ = trained
    rows = [{name: float(value) for name, value in row.items()} for row in read_metrics(folder / "metrics.csv")]
    assert [pytest.approx(row, rel=1e-5) for row in wandb.rows] == rows
    assert wandb.config["margin"]["name"] == "adaface"
    assert wandb.options["name"] == "a"
    assert wandb.ended == "success"
    assert list((folder / "tensorboard").glob("events*"))  # all the same


def test_trace_opens(trained: tuple[Path, Recorded, list[str]]) -> None:
    """The format of Perfetto and chrome://tracing: complete events ("X") with name, start and duration."""
    trace = json.loads((trained[0] / "trace.json").read_text())
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert len({event["name"] for event in events if event["name"].startswith("ProfilerStep")}) == 3
    assert {"aten::convolution", "StreamedLoss", "Optimizer.step#SGD.step"} <= {event["name"] for event in events}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in events)


@pytest.mark.slow  # makes a database
def test_mlflow_without_a_server_writes_into_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("a", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    _, mlflow = loggers.create_loggers("mlflow", tmp_path / "a", {"seed": 1})
    mlflow.log_metrics({"loss": 2.5}, 3)
    mlflow.finalize("success")
    with closing(sqlite3.connect(tmp_path / "a" / "mlflow.db")) as database:
        assert database.execute("select key, value, step from metrics").fetchall() == [("loss", 2.5, 3)]
        assert database.execute("select key, value from params").fetchall() == [("seed", "1")]
        assert database.execute("select name, status from runs").fetchall() == [("a", "FINISHED")]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("missing", ["wandb", "mlflow"])
def test_missing_logger(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(InputError, match=rf"needs {missing}: pip install 'marginface\[{missing}\]'"):
        LoopConfig(logger=missing)


def test_bad_profile() -> None:
    with pytest.raises(InputError, match=r"train\.profile is -1"):
        LoopConfig(profile=-1)


@pytest.mark.parametrize("name", list_margins())
def test_numbers_of_the_head(name: str) -> None:
    case = batch()
    head = head_for(name, case.weight_CD)
    head(case.x_ND, case.labels_N)
    found = to_host(head_numbers(head))
    rows = case.labels_N >= 0
    own_VD = case.weight_CD[case.labels_N[rows]]
    cos_V, norms_V = torch.cosine_similarity(case.x_ND[rows], own_VD), case.x_ND[rows].norm(dim=1)
    assert head_columns(head.margin)[0] == ("target_logit" if name == "softmax" else "target_cosine")
    if name == "softmax":  # takes no cosine
        cos_V = (case.x_ND[rows] * own_VD).sum(1)
    assert [key for key in found if not key.startswith("margin_")] == head_columns(head.margin)
    for column, values in ((head_columns(head.margin)[0], cos_V), ("norm", norms_V)):
        assert found[column] == pytest.approx(float(values.mean()), rel=1e-5)
        for quantile, share in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95)):
            assert found[f"{column}_{quantile}"] == pytest.approx(float(values.quantile(share)), rel=1e-5)
    assert 0 <= found["easy"] <= 1 - found["hard"] <= 1
    assert {key for key in found if key.startswith("margin_")} == STATES.get(name, set())


STATES = {
    "adaface": {"margin_batch_mean", "margin_batch_std"},
    "adacos": {"margin_s", "margin_log_b"},
    "curricularface": {"margin_t"},
    "sphereface": {"margin_iteration"},
    "sphereface2": {"margin_bias"},
    "uniface": {"margin_bias"},
}


@pytest.mark.parametrize("name", [name for name in SOFTMAX_MARGINS if name != "adacos"])  # whose scale moves after it
def test_easy_and_hard(name: str) -> None:
    """Against the probabilities of the dense formula, and for hard the same without any margin at the target."""
    case = batch(num_rows=200)
    head = head_for(name, case.weight_CD).eval()
    head(case.x_ND, case.labels_N)
    found = to_host(head_numbers(head))
    rows, labels = case.labels_N >= 0, case.labels_N[case.labels_N >= 0, None]
    logits_NC = head.logits(case.x_ND, case.labels_N)
    own_V = logits_NC.softmax(1)[rows].gather(1, labels)
    assert found["easy"] == pytest.approx(float((own_V > 0.5).double().mean()))
    cos_NC, norms_N = dense_products(case.x_ND, case.weight_CD, head.margin, head.bias)
    plain_NC = (head.margin.row_scale(norms_N)[:, None] * cos_NC)[rows]
    bare_V = logits_NC[rows].scatter(1, labels, plain_NC.gather(1, labels)).softmax(1).gather(1, labels)
    assert found["hard"] == pytest.approx(float((bare_V <= 0.5).double().mean()))


def test_before_the_first_step_there_is_only_the_margins_state() -> None:
    case = batch()
    assert to_host(head_numbers(head_for("arcface", case.weight_CD))) == {}
    unlabelled = head_for("arcface", case.weight_CD)
    unlabelled(case.x_ND, torch.full_like(case.labels_N, -1))
    assert head_numbers(unlabelled) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"step,loss\nabc,1\n", "invalid literal"),
        (b"step,loss\n1,abc\n", "could not convert"),
        (b"loss\n1\n", "it has no 'step'"),
        (b"step,loss\n" + b"9" * 400 + b",1\n", "there is no step 999"),
        (b"step,loss\n-1,1\n", "there is no step -1"),
        (b"step,loss\n1,2,3\n", "float"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_damaged_metrics_are_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_metrics(tmp_path / "metrics.csv")


def test_a_last_row_half_written_is_left_out(tmp_path: Path) -> None:
    """As a kill leaves it: its step may be cut too."""
    (tmp_path / "metrics.csv").write_text("step,loss\n14,1\n1")
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": "14", "loss": "1"}]
