"""`marginface identify` on files as people have them: a name, or one sentence, and no noise from the libraries."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from marginface import cli
from marginface.commands import identify
from marginface.gallery.people import Match
from recognition import COLOURS, EYE, photograph

IMAGE = photograph((COLOURS["Ann"], 30, 20))


@pytest.fixture(autouse=True)
def everyone_is_ann(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(vectors: np.ndarray, threshold: float) -> list[Match]:
        return [Match("Ann", 0.99, [("Ann", 0.99)])] * len(vectors)

    monkeypatch.setattr(identify, "open_eye", lambda options: EYE)
    monkeypatch.setattr(identify, "open_gallery", lambda *words, **more: nullcontext(SimpleNamespace(identify=named)))


def wide() -> np.ndarray:
    return np.tile(IMAGE[:, 120:], (1, 167, 1))[:, :20_000]


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size; its header is all that may be looked at."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\2\0\0\0" + bytes(999)


def write(path: Path) -> None:
    """The file that its name speaks of."""
    image = IMAGE[..., ::-1]
    broken = {
        "empty": b"",
        "drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "bomb": bomb(60_000, 60_000),
        "square": bomb(20_000, 20_000),
        "words": b"Dear Ann,",
    }
    if path.stem in broken:
        path.write_bytes(broken[path.stem])
    elif path.stem == "deep":
        cv2.imwrite(str(path), image.astype(np.uint16) * 257)
    elif path.stem == "wide":
        cv2.imwrite(str(path), np.hstack([image, wide()[:, 240:]]))
    else:
        first = Image.fromarray(IMAGE)
        grey = Image.fromarray(np.full_like(IMAGE, 128))
        more = {"save_all": True, "append_images": [grey, grey]} if path.stem == "moving" else {}
        (first.convert("CMYK") if path.stem == "cmyk" else first).save(path, **more)


@pytest.mark.parametrize("name", ["deep.png", "cmyk.jpg", "moving.webp", "moving.png", "wide.jpg", "still.odd.bmp"])
def test_what_can_be_read(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / name)
    cli.main(["identify", str(tmp_path / name)])
    told = capfd.readouterr()
    assert told.out == f"{tmp_path / name}: Ann (0.99)\n"
    assert told.err == ""


KINDS = "it is not JPEG, PNG, BMP, WebP or PNM"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty.jpg", "it is empty"),
        ("empty", "it is empty"),
        ("empty.mp4", "the video cannot be opened"),
        ("drawing.svg", KINDS),
        ("drawing.jpg", KINDS),
        ("moving.gif", KINDS),
        ("words.txt", KINDS),
        ("words.mov", "the video cannot be opened"),
        ("bomb.png", "it claims 60000×60000 pixels"),
        ("square.png", "it claims 20000×20000 pixels"),
    ],
)
def test_one_sentence_for_what_cannot(tmp_path: Path, name: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / name)
    with pytest.raises(SystemExit) as ended:
        cli.main(["identify", str(tmp_path / name)])
    told = capfd.readouterr()
    assert ended.value.code == 2
    assert told.out == ""
    assert re.fullmatch(rf"marginface: {re.escape(str(tmp_path / name))}: .*{re.escape(why)}.*\n", told.err), told.err


def test_a_folder_names_what_it_leaves_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "empty.jpg")
    with pytest.raises(SystemExit):
        cli.main(["identify", str(tmp_path)])
    assert "none of the photographs in" in capfd.readouterr().err
    write(tmp_path / "deep.png")
    cli.main(["identify", str(tmp_path)])
    told = capfd.readouterr()
    assert told.out == f"{tmp_path / 'deep.png'}: Ann (0.99)\n"
    assert told.err == f"{tmp_path / 'empty.jpg'}: the image cannot be read: it is empty.\n"
