"""The page over its own client: every button is an address, every answer what the desk says."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from marginface.demo.desk import Desk
from marginface.demo.page import serve_page
from marginface.gallery.people import Gallery
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, photograph


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), photograph((colour, 30, 20))[..., ::-1])
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((80, 80, 3), 128, np.uint8))
    return tmp_path


@pytest.fixture
def client(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from gradio_client import Client

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    desk = Desk(Gallery(Store(str(photos / "people.db"), write=True), MODEL), EYE)
    with serve_page(desk, 0.9, MODEL.thresholds) as address:
        yield Client(address, verbose=False, download_files=str(photos / "down"))
        folder = os.environ["GRADIO_TEMP_DIR"]
    assert not Path(folder).exists(), "copies of photographs must go with the server"


def test_a_visit(client: Any, photos: Path) -> None:
    from gradio_client import handle_file

    photo = {name: handle_file(str(photos / f"{name}.png")) for name in (*COLOURS, "nobody")}
    for name in COLOURS:
        told, _, cleared = client.predict(photo[name], name, api_name="/enrol")
        assert cleared is None
        assert told.startswith(f"Photographs of {name}: 1.")
    picture, faces = client.predict(photo["Bob"], 0.9, 0, api_name="/recognise")
    assert '<tr class="known"><td>Bob</td>' in faces
    assert faces.count("<tr") == 2
    assert cv2.imread(picture if isinstance(picture, str) else picture["path"]).shape == (120, 240, 3)
    assert client.predict(0.95, api_name="/far").startswith("At most one in 1,000")
    told, faces = client.predict(photo["Ann"], photo["Eve"], 0.9, api_name="/compare")
    assert told.startswith("Different people")
    assert faces.count("<figure>") == 2
    told, pictures = client.predict(photo["Ann"], 0.9, api_name="/explain")
    assert told.startswith("Ann: 1.000")
    assert pictures.count("<figure>") == 4
    odd = "<script>alert(1)</script>"
    client.predict(photo["Ann"], odd, api_name="/enrol")
    assert "<script" not in client.predict(photo["Ann"], 0.9, 0, api_name="/recognise")[1]
    client.predict(odd, api_name="/erase")
    told, _ = client.predict("Ann", api_name="/erase")
    assert told == "Photographs of Ann erased: 1. People enrolled: 2."
    with pytest.raises(Exception, match="no face was found"):
        client.predict(photo["nobody"], "Nobody", api_name="/enrol")
