"""The page over its own client: every button is an address, every answer what the desk says."""

import base64
import html
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from marginface.demo.desk import Desk
from marginface.demo.server import serve_page
from marginface.errors import InputError
from marginface.gallery.people import Gallery
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, photograph


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in COLOURS.items():
        cv2.imwrite(str(folder / f"{name}.png"), photograph((colour, 30, 20))[..., ::-1])
    cv2.imwrite(str(folder / "nobody.png"), np.full((80, 80, 3), 128, np.uint8))
    return folder


@pytest.fixture(scope="module")
def client(photos: Path) -> Iterator[Any]:
    from gradio_client import Client

    desk = Desk(Gallery(Store(str(photos / "people.db"), write=True), MODEL), EYE)
    with serve_page(desk, 0.9, MODEL.thresholds) as address:
        base, token = address.split("?token=")
        yield Client(base, headers={"Authorization": f"Bearer {token}"}, verbose=False, download_files=False)


@pytest.fixture
def photo(photos: Path) -> dict[str, Any]:
    from gradio_client import handle_file

    return {name: handle_file(str(photos / f"{name}.png")) for name in (*COLOURS, "nobody")}


def test_a_visit(client: Any, photo: dict[str, Any]) -> None:
    for name in COLOURS:
        told, _, cleared, empty = client.predict(photo[name], name, api_name="/enrol")
        assert (cleared, empty) == (None, "")
        assert told.startswith(f"<p>Photographs of {name}&#58; 1&#46;")
    picture, faces = client.predict(photo["Bob"], 0.9, 0, api_name="/recognise")
    assert '<tr class="known"><td><bdi>Bob</bdi></td>' in faces
    assert faces.count("<tr") == 2
    assert pixels(picture).shape == (120, 240, 3)
    assert "At most one in 1&#44;000" in client.predict(0.95, api_name="/far")
    told, faces = client.predict(photo["Ann"], photo["Eve"], 0.9, api_name="/compare")
    assert told.startswith("<p>Different people")
    assert faces.count("<figure>") == 2
    told, pictures = client.predict(photo["Ann"], 0.9, api_name="/explain")
    assert told.startswith("<p>Ann&#58; 1&#46;000")
    assert pictures.count("<figure>") == 4
    told, *_ = client.predict("Ann", api_name="/erase")  # enrolled since the start
    assert told == "<p>Photographs of Ann erased&#58; 1&#46; People enrolled&#58; 2&#46;</p>"


@pytest.mark.parametrize(
    ("endpoint", "words", "sentence"),
    [
        ("/enrol", ("nobody", "Nobody"), "nobody.png: no face was found in it"),
        ("/enrol", (None, "Nobody"), "Give a photograph and a name."),
        ("/enrol", ("Ann", "  "), "Give a photograph and a name."),
        ("/enrol", ("Ann", "unknown"), "'unknown' cannot be a person's name; give 1 to 500 bytes, not 'unknown'"),
        ("/enrol", ("Ann", "a\nb"), "A name is one line of text; leave out control characters."),
        ("/erase", ("Nobody",), "Nobody is not enrolled; choose a person from the list."),
        ("/erase", (None,), "Choose a person first."),
        ("/compare", ("Ann", None, 0.9), "Give two photographs."),
        ("/compare", ("Ann", "nobody", 0.9), "nobody.png: no face was found; try one"),
        ("/explain", (None, 0.9), "Give a photograph."),
    ],
)
def test_what_cannot_be_used(
    client: Any, photo: dict[str, Any], endpoint: str, words: tuple[Any, ...], sentence: str
) -> None:
    given = [photo.get(word, word) if position < 2 else word for position, word in enumerate(words)]
    assert said(client, *given, api_name=endpoint).startswith(sentence)


def said(client: Any, *words: Any, api_name: str) -> str:
    """The message of a call that fails, as it reads on the page."""
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as caught:
        client.predict(*words, api_name=api_name)
    text = str(caught.value).replace("<wbr>", "")
    assert "<" not in text
    return html.unescape(text)


def encoded(form: str, mode: str = "RGB", turned: bool = False, **options: Any) -> bytes:
    """Ann's photograph as Pillow writes it; turned: upside down, with an EXIF tag that says so."""
    image = Image.fromarray(photograph((COLOURS["Ann"], 30, 20)))
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 3
        image, options = image.rotate(180), {**options, "exif": exif}
    stream = io.BytesIO()
    image.convert(mode).save(stream, form, **options)
    return stream.getvalue()


def deep_png() -> bytes:
    """Sixteen bits per channel."""
    deep = photograph((COLOURS["Ann"], 30, 20))[..., ::-1].astype(np.uint16) * 257
    return bytes(cv2.imencode(".png", deep)[1])


def animation() -> bytes:
    frames = [Image.fromarray(photograph((COLOURS[name], 30, 20))) for name in ("Ann", "Bob")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    return stream.getvalue()


def given(photos: Path, name: str, data: bytes) -> Any:
    from gradio_client import handle_file

    (photos / name).write_bytes(data)
    return handle_file(str(photos / name))


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded("JPEG", "CMYK", quality=95), lambda: encoded("JPEG", turned=True, quality=95), deep_png,
        lambda: encoded("PNG", "RGBA"), animation, lambda: encoded("BMP"),
    ],
    ids=["CMYK", "EXIF", "16 bits", "alpha", "animation", "BMP"],
)  # fmt: skip
def test_unusual_photographs(client: Any, photos: Path, photo: dict[str, Any], make: Callable[[], bytes]) -> None:
    upright, _ = client.predict(photo["Ann"], 0.9, 0, api_name="/recognise")
    told, _ = client.predict(given(photos, "unusual.img", make()), photo["Ann"], 0.9, api_name="/compare")
    assert told.startswith("<p>The same person")
    picture, _ = client.predict(given(photos, "unusual.img", make()), 0.9, 0, api_name="/recognise")
    assert np.abs(pixels(picture) - pixels(upright)).mean() < 4


def pixels(picture: dict[str, str]) -> np.ndarray:
    data = base64.b64decode(picture["url"].removeprefix("data:image/jpeg;base64,"))
    image: np.ndarray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image.astype(float)


def bomb() -> bytes:
    """A PNG of 20,000 × 20,000 grey pixels, 400 MB in 400 kB."""
    packer = zlib.compressobj(1)
    row = bytes(20_001)
    data = b"".join(packer.compress(row) for _ in range(20_000)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )


UNREADABLE = {
    "empty.jpg": lambda: b"",
    "a.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "a.gif": lambda: encoded("GIF"),
    "a.txt": lambda: b"text",
    "a.heic": lambda: b"\0\0\0\x18ftypheic" + bytes(500),
    "bomb.png": bomb,
    "cut.jpg": lambda: encoded("JPEG", quality=95)[:-800],
    "cut exif.jpg": lambda: encoded("JPEG", turned=True, quality=95)[:-800],
    "cut.png": lambda: encoded("PNG")[:-800],
    "header.webp": lambda: encoded("WEBP")[:40],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_photographs_that_cannot_be_read(client: Any, photos: Path, photo: dict[str, Any], name: str) -> None:
    file = given(photos, name, UNREADABLE[name]())
    for words, endpoint in (
        ((file, 0.9, 0), "/recognise"), ((file, "A"), "/enrol"), ((photo["Ann"], file, 0.9), "/compare"),
        ((file, 0.9), "/explain"),
    ):  # fmt: skip
        text = said(client, *words, api_name=endpoint)
        assert text.startswith(f"{name}: the image cannot be read: "), text
        assert "\n" not in text


def test_a_fault_of_ours_is_told_without_its_text(client: Any, photo: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(Gallery, "identify", lambda *_: 1 / 0)
    assert said(client, photo["Ann"], 0.9, 0, api_name="/recognise").startswith("This did not work, through no fault")


def test_hosts_and_ports_that_cannot_be(tmp_path: Path) -> None:
    desk = Desk(Gallery(Store(str(tmp_path / "people.db"), write=True), MODEL), EYE)
    for host, port, password, message in (
        ("0.0.0.0", None, "", "--host 0.0.0.0 shows the page to the whole network"),
        ("::", None, "1234567", "--host :: shows the page to the whole network"),
        ("0", None, "", "--host 0 shows the page to the whole network"),
        ("", None, "", "--host '' is no address"),
        ("no such host.invalid", None, "", "is no address of this machine"),
        ("192.0.2.1", None, "12345678", "of 192.0.2.1 cannot be listened on"),
        ("127.0.0.1", 99_999, "", "port 99999 of 127.0.0.1 cannot be listened on"),
    ):
        with pytest.raises(InputError, match=re.escape(message)), serve_page(desk, 0.9, {}, host, port, password):
            pass
