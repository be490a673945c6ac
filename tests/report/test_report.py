"""The page is whole, self-contained and escaped; tables say the same in every form."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from marginface.errors import InputError
from marginface.metrics.compare import compare
from marginface.metrics.groups import group_table
from marginface.metrics.identification import TpirAtFpir
from marginface.metrics.intervals import Interval
from marginface.metrics.reject import reject_curve
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.protocols.pairs import make_pairs
from marginface.report import (
    Provenance,
    comparison_sheet,
    group_sheet,
    latex_table,
    markdown_table,
    print_sheet,
    print_table,
    search_sheet,
    write_report,
)
from marginface.report.charts import Axis, nice_range


def result(model: str, noise: float, benchmark: str = "unseen people") -> VerificationResult:
    rng = np.random.default_rng(0)
    pairs = make_pairs(np.repeat(np.arange(60), 6), folds=5, per_fold=60, name=benchmark)
    embeddings = rng.normal(size=(60, 16))[pairs.subjects] + noise * rng.normal(size=(len(pairs.images), 16))
    return pairs.score(embeddings, model, replicates=50)


@pytest.fixture(scope="module")
def results() -> list[VerificationResult]:
    return [result("pixels", 3.0), result("<trained> & good", 0.5)]


class Balance(HTMLParser):
    """Checks that tags close in order and collects ids and references."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.sources += [found[key] or "" for key in ("src", "href") if key in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(path: Path, results: list[VerificationResult], **extras: object) -> tuple[str, Balance]:
    write_report(path, results, "A <title>", **extras)
    page = path.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert all(source.startswith("data:") for source in parser.sources), "nothing may come from the network"
    return page, parser


def test_the_page_is_self_contained_and_small(tmp_path: Path, results: list[VerificationResult]) -> None:
    picture = np.full((150, 130, 3), 90, np.uint8)
    history = [{"step": str(i), "loss": str(5 / (i + 1)), "x_accuracy": "" if i % 3 else "0.5"} for i in range(50)]
    page, parser = written(
        tmp_path / "report.html",
        results,
        training=history,
        pictures={"unseen people": lambda image: picture},
        samples=np.zeros((64, 256, 3), np.uint8),
        provenance=Provenance("marginface train --run.name x", "today", {"torch": "2"}, {"set": "sha256 ab"}),
    )
    assert len(page) < 5_000_000
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "marginface train --run.name x" in page
    assert "sha256 ab" in page
    assert "Training loss" in page
    assert "x accuracy" in page
    assert sum(source.startswith("data:image/jpeg") for source in parser.sources) >= 3
    assert "A &lt;title&gt;" in page
    assert "<trained>" not in page


def test_the_slider_counts_every_pair(tmp_path: Path, results: list[VerificationResult]) -> None:
    page, _ = written(tmp_path / "report.html", results)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert list(data["thresholds"]) == ["b0-0", "b0-1"]
    for one, table in zip(results, data["thresholds"].values(), strict=True):
        cuts = np.linspace(table["low"], table["high"], len(table["trueAccepts"]))
        for index in (0, 100, table["start"], 400):
            accepted = one.scores >= cuts[index]
            assert table["trueAccepts"][index] == np.sum(accepted & one.trials.same)
            assert table["falseAccepts"][index] == np.sum(accepted & ~one.trials.same)
    assert [curve["label"] for curve in data["charts"]["b0-roc"]["curves"]] == ["pixels", "<trained> & good"]
    shares = [value for _, value in data["charts"]["b0-scores-1"]["curves"][0]["values"][::2]]
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_a_single_perfect_model_and_several_benchmarks(tmp_path: Path) -> None:
    found = [result("one", 0.0, "x"), result("one", 0.4, "y"), *(result(f"m{i}", 1.0, "y") for i in range(8))]
    page, _ = written(tmp_path / "report.html", found, pictures={"x": lambda image: np.zeros((9, 9, 3), np.uint8)})
    assert "None at this model&#39;s threshold." in page or "None at this model's threshold." in page


def test_no_results_and_no_half_written_page(tmp_path: Path, results: list[VerificationResult]) -> None:
    with pytest.raises(InputError, match="at least one result"):
        write_report(tmp_path / "report.html", [], "t")
    with pytest.raises(InputError, match="RGB uint8"):
        write_report(tmp_path / "report.html", results, "t", samples=np.zeros((4, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_table_shows_figures_intervals_and_reasons(results: list[VerificationResult]) -> None:
    bounds = results[1].intervals.accuracy
    interval = f"{100 * bounds.low:.2f}–{100 * bounds.high:.2f}"
    for width, terminal, intervals in ((140, True, True), (80, True, False), (80, False, True)):
        out = io.StringIO()
        print_table(results, Console(width=width, force_terminal=terminal, file=out, no_color=True))
        text = out.getvalue()
        assert "unseen people" in text
        assert "<trained>" in text
        assert f"{100 * results[1].accuracy.mean:.2f}" in text
        assert (interval in text) == intervals
        assert "FAR 0.001 needs at least 1,000 different pairs, there are 300" in " ".join(text.split())


def test_markdown_and_latex_tables(results: list[VerificationResult]) -> None:
    lines = markdown_table(results).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 4
    latex = latex_table(results)
    assert r"Accuracy \%" in latex
    assert r"\& good" in latex
    assert latex.count(r"\\") == 3


def test_axes_place_and_name_ticks() -> None:
    log = Axis("FAR", 1e-6, 1.0, log=True, unit="rate")
    assert [text for _, text in log.ticks()] == ["1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1"]
    np.testing.assert_allclose(log.fractions(np.array([1e-9, 1e-6, 1e-3, 1.0])), [0, 0, 0.5, 1])
    assert next(text for _, text in Axis("", 0.7, 1.0, unit="percent").ticks()) == "70%"
    assert [text for _, text in Axis("", 0.0, 3000.0).ticks()] == ["0", "1k", "2k", "3k"]
    assert nice_range(np.array([0.13, 0.88])) == (0.0, 1.0)
    assert nice_range(np.array([3.0, 3.0]))[0] < 3 < nice_range(np.array([3.0, 3.0]))[1]
    assert nice_range(np.array([np.nan])) == (0.0, 1.0)


def test_search_groups_quality_and_comparisons_have_their_place(
    tmp_path: Path, results: list[VerificationResult]
) -> None:
    rates = {
        "legacy": [TpirAtFpir(0.01, 0.8, 0.5, 300, 300)],
        "open-set mean": [TpirAtFpir(0.001, 0.7, 0.6, 300, 200, "needs at least 1,000 probes, there are 300")],
    }
    searches = [
        IdentificationResult(
            model, "IJBX 1:N", 300, 40, 30, np.linspace(0.5, 0.9, 50), {1: 0.5, 5: 0.7}, rates,
            {"rank 1": Interval(0.4, 0.6)}, {"macro F1": 0.61},
        )
        for model in ("a", "b<c")
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    one = results[1]
    sides = np.where(one.trials.people[0] % 2, "x", "y"), np.where(one.trials.people[1] % 2, "x", "y")
    group = group_table(one.scores, one.trials.same, sides, one.trials.people, 0.4, column="group", replicates=20)
    reject = reject_curve(one.scores, one.trials.same, rng.random(len(one.scores)), fmr=0.05)
    comparison = compare(results[0], one, replicates=20)
    page, parser = written(
        tmp_path / "report.html",
        results,
        searches=searches,
        groups=[group],
        rejects=[reject],
        comparisons=[comparison],
    )
    assert "s0-cmc" in parser.ids
    assert "reject" in parser.ids
    for text in ("IJBX 1:N", "b&lt;c", "macro F1", "70.00*", "needs at least 1,000 probes", "McNemar", "By group"):
        assert text in page
    sheets = [search_sheet(searches), group_sheet(group), comparison_sheet([comparison])]
    for sheet in sheets:
        assert len({len(row) for row in sheet.rows} | {len(sheet.headings)}) == 1
        assert len({line.count("|") - line.count(r"\|") for line in sheet.markdown().splitlines()}) == 1
        assert sheet.latex().count(r"\\") == len(sheet.rows) + 1
        out = io.StringIO()
        print_sheet(sheet, Console(width=160, file=out, no_color=True))
        assert sheet.rows[0][1].text in out.getvalue()
    only_search, _ = written(tmp_path / "search.html", [], searches=searches)
    assert "CMC" in only_search
