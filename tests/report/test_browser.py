"""The report in a real browser: hovering, keyboard, slider, saved figures, phone and desk, light and dark, paper."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import open_browser
from marginface.metrics.compare import compare
from marginface.metrics.groups import group_table
from marginface.metrics.identification import TpirAtFpir
from marginface.metrics.intervals import Interval
from marginface.metrics.reject import reject_curve
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.protocols.pairs import make_pairs
from marginface.report import Provenance, write_report

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SHOTS = os.environ.get("MARGINFACE_SCREENSHOTS", "")
"""A folder to keep screenshots in, for people to look at."""


def verification(model: str, noise: float) -> VerificationResult:
    rng = np.random.default_rng(0)
    pairs = make_pairs(np.repeat(np.arange(60), 6), folds=5, per_fold=150, name="unseen people")
    embeddings = rng.normal(size=(60, 16))[pairs.subjects] + noise * rng.normal(size=(len(pairs.images), 16))
    return pairs.score(embeddings, model, replicates=50)


def picture(image: int) -> np.ndarray:
    return np.full((112, 112, 3), 40 + image % 180, np.uint8)


@pytest.fixture(scope="module")
def results() -> list[VerificationResult]:
    return [
        verification("raw pixels of a rather long name, without training", 2.0),
        verification("<b>trained</b>", 0.8),
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, results: list[VerificationResult]) -> Path:
    """A page that holds everything a page can hold."""
    rates = {name: [TpirAtFpir(0.01, 0.8, 0.5, 300, 300)] for name in ("legacy", "open-set mean")}
    searches = [
        IdentificationResult(
            one.model, "IJBX 1:N", 300, 40, 30, 1 - 0.5 / np.arange(1, 51), {1: 0.5, 5: 0.9, 10: 0.95}, rates,
            {"rank 1": Interval(0.4, 0.6)}, {"macro F1": 0.61},
        )
        for one in results
    ]  # fmt: skip
    one, rng = results[1], np.random.default_rng(0)
    sides = np.where(one.trials.people[0] % 2, "x", "y"), np.where(one.trials.people[1] % 2, "x", "y")
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        results,
        "runs/quickstart on unseen people",
        training=[
            {"step": i, "loss": 5 / (i + 1), "lr": 0.1 - i / 1000, "lfw_accuracy": 0.5 + i / 200} for i in range(60)
        ],
        provenance=Provenance("marginface evaluate " + "x" * 200, "today", {"torch": "2"}, {"set": "ab" * 32}),
        pictures={"unseen people": picture},
        samples=np.random.default_rng(0).integers(0, 255, (256, 1024, 3), np.uint8),
        searches=searches,
        groups=[group_table(one.scores, one.trials.same, sides, one.trials.people, 0.4, column="sex", replicates=20)],
        rejects=[reject_curve(one.scores, one.trials.same, rng.random(len(one.scores)), fmr=0.05)],
        comparisons=[compare(results[0], one, replicates=20)],
    )
    assert path.stat().st_size < 5_000_000
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the page; at the end nothing may have been fetched, and nothing said on the console."""
    pages, asked, said = [], [], []

    def opened(size: dict[str, int] = DESK, **context: Any) -> Any:
        page = browser.new_context(viewport=size, accept_downloads=True, **context).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert [url for url in asked if not url.startswith(("data:", "blob:")) and url != report.as_uri()] == []
    assert said == []


def hover(page: Any, figure: str, across: float, down: float) -> str:
    plot = page.locator(f"#{figure} svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    return str(page.locator(f"#{figure} .tip").inner_text())


def test_hovering_shows_values_of_the_nearest_point(visit: Any) -> None:
    page = visit()
    for figure, y in (("b0-roc", "True accept rate"), ("b0-det", "False non-match rate")):
        text = hover(page, figure, 0.5, 0.3)
        assert y in text
        assert "%" in text
        assert "threshold " in text
        assert page.locator(f"#{figure} .cursor").get_attribute("visibility") == "visible"
    assert "Rank" in hover(page, "s0-cmc", 0.5, 0.5)
    assert "Pairs left out" in hover(page, "reject", 0.5, 0.5)
    assert "Step" in hover(page, "training-0", 0.5, 0.5)
    page.mouse.move(0, 0)
    assert page.locator("#training-0 .tip").is_hidden()
    # the tip stays within its figure
    for across in (0.13, 0.5, 0.97):
        hover(page, "b0-roc", across, 0.9)
        tip, plot = (page.locator(f"#b0-roc {part}").bounding_box() for part in (".tip", "svg"))
        assert tip["x"] >= plot["x"] - 1
        assert tip["x"] + tip["width"] <= plot["x"] + plot["width"] + 1


def cells(page: Any) -> dict[str, int]:
    return {
        name: int(page.locator(f"[data-cell={name}]").inner_text().replace(",", ""))
        for name in ("tp", "fn", "fp", "tn")
    }


def test_the_slider_moves_the_confusion_figures_by_keyboard(visit: Any, results: list[VerificationResult]) -> None:
    page = visit()
    slider = page.locator("input.cut")
    slider.focus()
    seen = []
    for keys in ([], ["ArrowRight"] * 5, ["Home"], ["End"]):
        for key in keys:
            page.keyboard.press(key)
        one, cut = results[1], float(page.locator(".range output").inner_text())
        found, same = cells(page), one.trials.same
        # the shown threshold is rounded to three decimals
        for count, kind in ((found["tp"], same), (found["fp"], ~same)):
            least, most = np.sum(one.scores[kind] >= cut + 5e-4), np.sum(one.scores[kind] >= cut - 5e-4)
            assert least <= count <= most
        assert found["tp"] + found["fn"] == one.roc.genuines
        assert found["fp"] + found["tn"] == one.roc.impostors
        seen.append((cut, page.locator("#b0-roc .marks circle").get_attribute("cx")))
    assert len({cut for cut, _ in seen}) == 4
    assert len({place for _, place in seen}) >= 3
    assert cells(page)["tp"] <= 1  # the end of the axis accepts next to nothing
    page.locator("select.model").select_option("0")
    assert page.locator("#b0-scores-0").is_visible()
    assert page.locator("#b0-scores-1").is_hidden()
    assert sum(cells(page).values()) == len(results[0].scores)


def test_curves_are_walked_by_arrow_keys_and_everything_is_reached_by_tab(visit: Any) -> None:
    page = visit()
    page.locator("#b0-roc svg").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#b0-roc .tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#b0-roc .tip").inner_text() != first
    page.keyboard.press("ArrowUp")
    assert "raw pixels" in page.locator("#b0-roc .tip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#b0-roc .tip").is_hidden()
    page.locator("body").focus()
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.dataset.save || document.activeElement.tagName.toLowerCase()")
        )
    assert {"svg", "png", "csv", "input", "select", "summary", "div"} <= reached


@pytest.mark.slow
def test_every_figure_is_saved_in_three_forms(visit: Any, tmp_path: Path) -> None:
    page = visit()
    for number in range(page.locator("figure.chart:visible").count()):
        figure = page.locator("figure.chart:visible").nth(number)
        for kind in ("svg", "png", "csv"):
            with page.expect_download() as waiting:
                figure.locator(f"[data-save={kind}]").click()
            path = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(path)
            assert path.name == f"{figure.get_attribute('id')}.{kind}"
            if kind == "png":
                assert path.read_bytes().startswith(b"\x89PNG")
                assert path.stat().st_size > 5_000
            elif kind == "svg":
                alone = page.context.new_page()
                alone.goto(path.as_uri())
                assert alone.evaluate("document.documentElement.tagName") == "svg"
                assert "var(" not in path.read_text()
                alone.close()
            else:
                header, *rows = csv.reader(path.read_text().splitlines())
                assert len(rows) >= 2
                assert all(len(row) == len(header) == 3 for row in rows)


def test_every_table_has_its_markdown_and_latex(visit: Any) -> None:
    page = visit()
    tables = page.locator("table.summary").count()
    for summary in page.locator("details summary").all():
        summary.click()
    sources = page.locator("details pre").all_inner_texts()
    assert sum(source.startswith("| ") for source in sources) == tables
    assert sum(source.startswith(r"\begin{tabular}") for source in sources) == tables


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_window(visit: Any, size: dict[str, int], scheme: str) -> None:
    page = visit(size, color_scheme=scheme, has_touch=size is PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) < 200) == (scheme == "dark")
    if size is PHONE:
        page.locator("#b0-roc svg").tap()
        assert page.locator("#b0-roc .tip").is_visible()
        page.locator("h1").tap()
        assert page.locator("#b0-roc .tip").is_hidden()
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{size['width']}-{scheme}.png", full_page=True)


def test_it_prints(visit: Any, tmp_path: Path) -> None:
    page = visit(color_scheme="dark")
    path = Path(SHOTS or tmp_path) / "report.pdf"
    page.pdf(path=path, format="A4")
    assert path.read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".save").first.is_hidden()
    assert page.locator("details").first.is_hidden()
