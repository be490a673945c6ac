"""Photographs of visitors: kept in memory, within limits, under names that nobody guesses."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from asgi import Response, ask
from marginface.demo import photographs as module
from marginface.demo.guard import Message, Receive, Send, TooLarge, read_body
from marginface.demo.photographs import PhotographRoutes, Photographs, check, shown_name
from marginface.errors import InputError
from marginface.gallery.photos import Photograph

FORM = ("content-type", "multipart/form-data; boundary=b")


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    body = await read_body(receive, 1 << 20)
    await send({"type": "http.response.start", "status": 200, "headers": list(scope["headers"])})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def kept() -> Photographs:
    return Photographs()


def form(*files: tuple[str, bytes]) -> bytes:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n'
        b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--b--\r\n"


def upload(kept: Photographs, body: bytes, line: tuple[str, str] = FORM) -> Response:
    return ask(PhotographRoutes(echo, kept), "/gradio_api/upload", "POST", [line], [body])


def png(width: int, height: int) -> bytes:
    """A PNG's header that claims a size, and next to nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_there_and_back(kept: Photographs) -> None:
    data = png(4, 4) + bytes(3 << 20)  # more than a parser keeps in memory of its own accord
    answer = upload(kept, form(("../a/Ann.png", data)))
    (key,) = json.loads(answer.body)
    assert len(key) >= 20
    assert (kept.find(key).name, kept.find(key).data) == ("Ann.png", data)
    shown = ask(PhotographRoutes(echo, kept), f"/gradio_api/file={key}")
    assert (shown.body, shown.headers["content-type"]) == (data, "image/png")
    (other,) = json.loads(upload(kept, form(("../a/Ann.png", data))).body)
    assert other != key, "the name tells nothing of the content"


@pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b"<html>", b"", b"GIF89a", b"%PDF"])
def test_what_is_no_photograph_is_shown_as_no_page(kept: Photographs, data: bytes) -> None:
    (key,) = json.loads(upload(kept, form(("a.svg", data))).body)
    shown = ask(PhotographRoutes(echo, kept), f"/gradio_api/file={key}")
    assert shown.headers["content-type"] == "application/octet-stream"
    with pytest.raises(InputError, match=r"^a\.svg: the image cannot be read: it is (empty|not JPEG)"):
        check(kept.find(key))


@pytest.mark.parametrize("path", ["/etc/passwd", "x", "", "../x", "http://127.0.0.1/", "a/b"])
def test_no_other_file(kept: Photographs, path: str) -> None:
    answer = ask(PhotographRoutes(echo, kept), f"/gradio_api/file={path}")
    assert (answer.status, answer.body) == (404, b"The photograph is no longer kept; give it once more.")


@pytest.mark.parametrize(
    "body", [b"", b"--b--\r\n", b"x" * 100, form(("a", b"1"), ("b", b"2")), form(("a", b"1"))[:-20], b"--b\r\n\r\n"]
)
def test_what_is_no_upload(kept: Photographs, body: bytes) -> None:
    answer = upload(kept, body)
    assert (answer.status, answer.body) == (400, b"Send one photograph, as multipart/form-data.")
    assert upload(kept, body, ("content-type", "text/plain")).status == 400
    assert upload(kept, body, ("content-type", "multipart/form-data")).status == 400


def test_one_file_too_large(kept: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert upload(kept, form(("a", bytes(1000)))).status == 200
    with pytest.raises(TooLarge):  # which the guard answers
        upload(kept, form(("a", bytes(1001))))


def test_the_oldest_goes_first(kept: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    keys = [kept.keep(Photograph("a", b"1")) for _ in range(3)]
    kept.find(keys[0])  # used again
    kept.keep(Photograph("a", b"1"))
    assert [there(kept, key) for key in keys] == [True, False, True]
    monkeypatch.setattr(module, "IN_TOTAL", 100)
    large = [kept.keep(Photograph("a", bytes(60))) for _ in range(3)]
    assert [there(kept, key) for key in large] == [False, False, True]


def test_forgotten_when_unused(kept: Photographs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    keys = [kept.keep(Photograph("a", b"1")) for _ in range(2)]
    now[0] += module.UNUSED - 1
    kept.find(keys[1])
    now[0] += 2
    kept.tidy()
    assert [there(kept, key) for key in keys] == [False, True]


def there(kept: Photographs, key: str) -> bool:
    try:
        kept.find(key)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("key", [None, 3, ["x"], {}, "x"])
def test_names_of_no_photograph(kept: Photographs, key: Any) -> None:
    with pytest.raises(InputError, match="no longer kept"):
        kept.find(key)


def test_nothing_a_call_brings_is_a_file(kept: Photographs) -> None:
    file = {"path": "/etc/passwd", "url": "http://evil.example", "meta": {"_type": "gradio.FileData"}}
    call = {"data": [file, [{"deep": [file]}], 1.5, None, "é\ud800"], "fn_index": 2, "session_hash": "x"}
    twice = json.dumps(call)[:-1] + ', "meta": 1, "meta": {"_type": "gradio.FileData"}}'
    answer = ask(PhotographRoutes(echo, kept), "/gradio_api/queue/join", "POST", [FORM], [twice.encode()])
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    plain = {"path": "/etc/passwd", "url": "http://evil.example"}
    assert json.loads(answer.body) == {**call, "data": [plain, [{"deep": [plain]}], 1.5, None, "é\ud800"]}


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"data=1"])
def test_calls_that_are_no_json(kept: Photographs, body: bytes) -> None:
    assert ask(PhotographRoutes(echo, kept), "/gradio_api/queue/join", "POST", [], [body]).status == 400


def test_a_call_too_large(kept: Photographs) -> None:
    with pytest.raises(TooLarge):
        ask(PhotographRoutes(echo, kept), "/gradio_api/queue/join", "POST", [], [b" " * 600_000] * 2)


def test_pixels_are_counted_before_decoding() -> None:
    check(Photograph("a.png", png(8192, 8192)))
    with pytest.raises(InputError, match=r"^a\.png: it has 20000×20000 pixels, more than the 67,108,864 allowed\.$"):
        check(Photograph("a.png", png(20_000, 20_000)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("C:\\photos\\Ann.jpg", "Ann.jpg"), ("a/../../b.png", "b.png"), ("", "photograph"), ("\n\0", "photograph"),
        ("gpj.\u202eexe", "gpj.exe"), ("a\r\nb.png", "ab.png"), ("é漢字.jpg", "é漢字.jpg"),
        ("x" * 500, "x" * 40 + "…" + "x" * 39),
    ],
)  # fmt: skip
def test_names_of_files(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_nothing_reaches_the_disk(kept: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))  # whoever makes a file there, fails
    assert upload(kept, form(("a.png", bytes(20 << 20)))).status == 200


def test_one_that_the_page_did_not_send(kept: Photographs) -> None:
    with pytest.raises(InputError, match=r"The photograph is larger than 32 MiB; give a smaller file\."):
        check(kept.find("too-large"))
