"""The page in headless Chromium, as a visitor with a phone meets it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from browser import open_browser
from marginface.demo.desk import Desk
from marginface.demo.server import serve_page
from marginface.detection import open_detector
from marginface.gallery.models import open_model
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, photograph

PEOPLE = 20


@pytest.fixture
def people(lfw_root: Path) -> list[tuple[str, list[Path]]]:
    """Of the validation people those with three photographs or more: a name, and these."""
    names = [line.split("\t")[0] for line in (lfw_root / "val_names.txt").read_text().splitlines()]
    everyone = ((name, sorted((lfw_root / "images" / name).glob("*.jpg"))) for name in names)
    return [(name, photos) for name, photos in everyone if len(photos) >= 3][:PEOPLE]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    model = open_model("dlib")
    eye = Eye(open_detector("mtcnn"), model)
    desk = Desk(Gallery(Store(str(tmp_path / "people.db"), write=True), model), eye)
    with serve_page(desk, model.threshold(1e-3), model.thresholds) as served:
        yield served


@pytest.fixture
def page() -> Iterator[Any]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(60_000)
        yield page


def give(page: Any, where: str, photo: Path) -> None:
    """Drops a photograph there, in place of the last one."""
    if page.locator(f"{where} img").count():
        page.locator(where).get_by_label("Remove Image").click()
    page.locator(f"{where} input[type=file]").set_input_files(str(photo))
    page.locator(f"{where} img").wait_for()


def set_slider(page: Any, where: str, value: float) -> None:
    number = page.locator(f"{where} input[type=number]")
    number.fill(str(value))
    number.press("Enter")


def recognised(page: Any) -> str:
    page.locator("#faces td").first.wait_for()
    return str(page.locator("#faces td").first.inner_text())


def test_enrolled_then_recognised_then_erased(page: Any, tmp_path: Path) -> None:
    photos = {name: tmp_path / f"{name}.png" for name in ("Ann", "Bob")}
    for name, photo in photos.items():
        cv2.imwrite(str(photo), photograph((COLOURS[name], 30, 20))[..., ::-1])
    desk = Desk(Gallery(Store(str(tmp_path / "people.db"), write=True), MODEL), EYE)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    with serve_page(desk, 0.9, MODEL.thresholds) as address:
        page.goto(address)
        page.get_by_role("tab", name="Enrol").click()
        give(page, "#enrol-photo", photos["Ann"])
        page.locator("#name").get_by_role("textbox").fill("Ann")
        page.keyboard.press("Enter")
        page.get_by_text("People enrolled: 1.").wait_for()
        page.get_by_role("tab", name="Recognise").click()
        for name, expected in (("Ann", "Ann"), ("Bob", "unknown")):
            give(page, "#photo", photos[name])
            page.locator("#faces td").first.get_by_text(expected).wait_for()
        large = tmp_path / "large.png"
        with large.open("wb") as file:
            file.truncate((32 << 20) + 1)
        page.locator("#photo").get_by_label("Remove Image").click()
        page.locator("#photo input[type=file]").set_input_files(str(large))
        page.get_by_text("The photograph is larger than 32 MiB; give a smaller file.").wait_for()
        assert "413" not in page.locator("body").inner_text()
        page.reload()
        page.get_by_role("tab", name="Enrol").click()
        page.locator("#people input").click()
        page.get_by_role("option", name="Ann").click()
        page.locator("#erase").click()
        page.locator("#erase-yes").click()
        page.get_by_text("People enrolled: 0.").wait_for()
    assert [url for url in asked if not url.startswith((address.split("?")[0], "blob:", "data:"))] == []
    assert errors == []


@pytest.mark.lfw
@pytest.mark.slow
def test_twenty_people_on_a_phone(
    page: Any, address: str, people: list[tuple[str, list[Path]]], tmp_path: Path
) -> None:
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_role("tab", name="Enrol").focus()
    page.keyboard.press("Enter")  # no mouse is needed
    for number, (name, photos) in enumerate(people):
        give(page, "#enrol-photo", photos[0])
        page.locator("#name").get_by_role("textbox").fill(name)
        page.keyboard.press("Enter")
        page.get_by_text(f"People enrolled: {number + 1}.").wait_for()
        page.locator("#enrol-photo img").wait_for(state="detached")  # ready for the next one
    page.screenshot(path=str(tmp_path / "enrol.png"), full_page=True)

    page.get_by_role("tab", name="Recognise").click()
    wrong = []
    for name, photos in people:
        give(page, "#photo", photos[1])
        found = recognised(page)
        wrong += [] if name in found else [(name, found)]
        if page.locator("#photo img").count():
            page.locator("#photo").get_by_label("Remove Image").click()
            page.locator("#faces td").first.wait_for(state="detached")
    assert len(wrong) <= 4, wrong
    assert [found for _, found in wrong if "unknown" not in found] == []  # nobody is taken for another
    known = next((name, photos) for name, photos in people if name not in dict(wrong))
    give(page, "#photo", known[1][1])
    assert known[0] in recognised(page)
    slider = page.locator("#threshold input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")  # from now on the focus is the keyboard's
    assert slider.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    for icon in page.locator("#photo .source-selection button, #photo .icon-button").all():
        box = icon.bounding_box()
        assert min(box["width"], box["height"]) >= 40  # for fingers
    page.screenshot(path=str(tmp_path / "recognise.png"), full_page=True)
    assert "At most one in 1,000" in page.locator("#far").inner_text()
    set_slider(page, "#threshold", 0.999)
    page.locator("#faces tr.unknown").wait_for()
    set_slider(page, "#threshold", 0.5)
    page.get_by_text("More than one in").wait_for()
    page.locator("#faces tr.known").wait_for()
    sharp = float(page.locator("#faces td").nth(3).inner_text())
    set_slider(page, "#blur", 4)
    for _ in range(300):
        cells = page.locator("#faces td").all_inner_texts()
        if len(cells) > 3 and float(cells[3]) < sharp / 4:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail(f"blurred, the sharpness is still {cells}")

    page.get_by_role("tab", name="Compare").click()
    give(page, "#first", people[0][1][0])
    give(page, "#second", people[1][1][0])
    set_slider(page, "#threshold", 0.95)
    page.locator("#compare").click()
    page.locator("#compared").get_by_text("Different people").wait_for()
    assert page.locator("#pair figure").count() == 2

    page.get_by_role("tab", name="Why?").click()
    give(page, "#why-photo", known[1][1])
    page.locator("#explain").click()
    page.locator("#why").get_by_text(known[0]).wait_for()
    assert known[0] in page.locator("#reasons figure").nth(1).inner_text()
    assert page.locator("#reasons figure").count() == 4
    page.screenshot(path=str(tmp_path / "why.png"), full_page=True)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        assert [page.get_by_role("tab", name=tab).is_visible() for tab in ("Recognise", "Enrol", "Compare", "Why?")]

    page.reload()
    page.get_by_role("tab", name="Enrol").click()
    page.locator("#people input").click()
    page.get_by_role("option", name=known[0]).click()
    page.locator("#erase").click()
    page.locator("#erase-no").click()
    page.locator("#erase-yes").wait_for(state="hidden")
    page.locator("#erase").click()
    page.get_by_text(f"Erase {known[0]} and all that is stored of them? This cannot be undone.").wait_for()
    page.locator("#erase-yes").click()
    page.get_by_text(f"People enrolled: {PEOPLE - 1}.").wait_for()
    page.get_by_role("tab", name="Recognise").click()
    give(page, "#photo", known[1][0])
    assert "unknown" in recognised(page)
    assert {url for url in asked if not url.startswith((address.split("?")[0], "blob:", "data:"))} == set()
    assert errors == []
