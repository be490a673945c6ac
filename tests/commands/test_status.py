"""`marginface status`: a run's place, told from its files while another process holds them."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from marginface import cli
from marginface.training.status import read_status

ROWS = """step,epoch,loss,lr,images_per_second,data_wait,lfw_accuracy,own_accuracy
5,0.5,20.25,0.1,200,0.1,,
10,1,11.5,0.1,240.5,0.1,,
10,,,,,,0.75,0.85
15,1.5,9.125,0.1,250,0.1,,
15,,,,,,0.5,0.7
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 40 steps, 15 of them done, with a checkpoint of step 12 written ten minutes ago."""
    folder = tmp_path / "runs" / "a"
    for step in (8, 12, 14):
        (folder / "checkpoints" / f"state-{step}").mkdir(parents=True)
    for step in (8, 12):  # the last one is not complete, so nothing goes on from it
        (folder / "checkpoints" / f"state-{step}" / "state.json").touch()
    (folder / "config.yaml").write_text("train:\n  epochs: 4\n")
    (folder / "metrics.csv").write_text(ROWS)
    (folder / "progress.json").write_text('{"step": 15, "total_steps": 40, "steps_per_second": 2.5}')
    past = time.time() - 600
    os.utime(folder / "checkpoints" / "state-12", (past, past))
    return folder


def test_running(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with (run / "config.yaml").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status = read_status(str(run))
    assert (status.state, status.step, status.total_steps) == ("running", 15, 40)
    assert (status.epoch, status.epochs, status.loss, status.images_per_second) == (1.5, 4.0, 9.125, 250.0)
    assert status.seconds_left == 10.0
    assert (status.best_accuracy, status.best_step) == (pytest.approx(0.8), 10)
    assert status.checkpoint_step == 12
    assert status.checkpoint_age == pytest.approx(600, abs=60)
    assert status.last_word_age is not None
    assert status.last_word_age < 60
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_stopped_and_finished(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["status", str(run)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "stopped" in shown
    assert "15 of 40 (38%)" in shown
    assert "best accuracy 0.8000 at step 10" in shown
    assert "checkpoint step 12, 0:10:0" in shown
    assert "go on with marginface train --resume" in shown
    assert "time left" not in shown
    (run / "model").mkdir()
    cli.main(["status", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["seconds_left"], found["loss"]) == ("finished", None, 9.125)


def test_a_row_half_written_is_left_alone(run: Path) -> None:
    (run / "metrics.csv").write_text(ROWS + "20,2,8.0,0")
    assert read_status(str(run)).step == 15


def test_before_the_first_row(run: Path) -> None:
    (run / "metrics.csv").unlink()
    (run / "progress.json").unlink()
    status = read_status(str(run))
    assert (status.step, status.total_steps, status.loss, status.last_word_age) == (0, None, None, None)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["status", str(tmp_path)])
    assert end.value.code == 2
    assert "is not a run" in capsys.readouterr().err
