"""What an evaluation's JSON says, for cards and metadata."""

import json
from pathlib import Path

import pytest

from marginface.errors import InputError
from marginface.weights.figures import find_figures, markdown, read_figures, thresholds

RESULT = {
    "benchmark": "lfw",
    "model": "trained network",
    "accuracy": {"mean": 0.9125},
    "auc": {"value": 0.97},
    "eer": {"value": 0.0881},
    "tar_at_far": [
        {"far": 0.01, "tar": 0.7, "threshold": 0.25, "reason": None},
        {"far": 1e-6, "tar": None, "threshold": None, "reason": "only 3000 impostor pairs"},
    ],
}


def test_baselines_are_left_out_and_a_model_finds_its_run(tmp_path: Path) -> None:
    content = {"results": [{**RESULT, "model": "pixels"}, RESULT]}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "model").mkdir()
    assert read_figures(tmp_path / "metrics.json") == find_figures(tmp_path / "model") == find_figures(tmp_path)
    assert read_figures(tmp_path / "metrics.json") == [RESULT]
    assert find_figures(tmp_path / "model" / "deeper") == []


def test_thresholds_only_where_the_pairs_support_the_rate() -> None:
    assert thresholds([RESULT]) == {"lfw": {"0.01": 0.25}}


def test_the_table() -> None:
    assert markdown([]) == ""
    assert markdown([RESULT]).splitlines() == [
        "| benchmark | accuracy % | AUC | EER % | TAR % @ FAR 0.01 | TAR % @ FAR 1e-06 |",
        "|---|---|---|---|---|---|",
        "| lfw | 91.25 | 0.9700 | 8.81 | 70.00 | - |",
    ]


def test_what_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; write it with: marginface evaluate"):
        read_figures(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("[1]")
    with pytest.raises(InputError, match="is no evaluation"):
        read_figures(tmp_path / "r.json")


@pytest.mark.parametrize(
    "change",
    [
        {"benchmark": 3}, {"benchmark": "a\nb"}, {"auc": None}, {"auc": {"value": "0.9"}}, {"eer": {}},
        {"eer": {"value": float("nan")}}, {"accuracy": {"mean": [1]}}, {"accuracy": 3}, {"tar_at_far": 3},
        {"tar_at_far": [3]}, {"tar_at_far": [{"far": 0.1}]},
        {"tar_at_far": [{"far": 0.1, "tar": 1e999, "threshold": 0.5}]},
    ],
)  # fmt: skip
def test_figures_of_a_stranger_are_checked(change: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"results": [{**RESULT, **change}]}))
    with pytest.raises(InputError, match="is no evaluation"):
        read_figures(tmp_path / "r.json")


def test_searches_have_no_such_figures(tmp_path: Path) -> None:
    """They stand beside pairs in one file, and have neither AUC nor EER."""
    search = {"benchmark": "closed set", "model": "trained network", "probes": 3, "ranks": {"1": 0.5}}
    (tmp_path / "r.json").write_text(json.dumps({"results": [search, RESULT]}))
    assert markdown(read_figures(tmp_path / "r.json")) == markdown([RESULT])
