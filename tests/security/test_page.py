"""The web page against other pages, other machines and hostile visitors: raw requests to every route, and signals."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

from browser import open_browser
from marginface.demo.desk import Desk
from marginface.demo.photographs import Photographs
from marginface.demo.server import PATHS, gradio_app, serve_page
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Photograph
from marginface.gallery.store import Store
from recognition import COLOURS, EYE, MODEL, photograph

OPEN = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/assets/{path:path}", "/static/{path:path}",
    "/gradio_api/info", "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/file={path_or_url:path}",
    "/gradio_api/cancel", "/gradio_api/heartbeat/{session_hash}",
    "/gradio_api/queue/join", "/gradio_api/queue/data",
    "/gradio_api/run/{api_name}", "/gradio_api/call/{api_name}", "/gradio_api/call/{api_name}/{event_id}",
}  # fmt: skip
"""Of Gradio's routes those that the page or its API needs; another one is out of reach until somebody adds it here."""
NAMES = [
    "![x](http://127.0.0.1:{port}/markdown.png)",
    "<img src=http://127.0.0.1:{port}/html.png>",
    "<script>fetch('http://127.0.0.1:{port}/script')</script>",
    "<svg/onload=fetch('http://127.0.0.1:{port}/svg')>",
    "<style>@import 'http://127.0.0.1:{port}/css';</style>",
    "$$\\href{{http://127.0.0.1:{port}/latex}}{{x}}$$",
    "${{fetch('http://127.0.0.1:{port}/template')}}",
    "{{{{constructor.constructor('return fetch(1)')()}}}}",
    "http://127.0.0.1:{port}/link",
    "```mermaid",
    "../../etc/passwd",
    "C:\\\\Ann",
    "אבג abc",
    "# Ann",
    "é" * 250,
]
"""Names of people; {port} is of a server that nobody may ask for anything."""


class Server(NamedTuple):
    """The page as it runs in this process."""

    port: int
    token: str
    desk: Desk


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    desk = Desk(Gallery(Store(str(tmp_path_factory.mktemp("page") / "people.db"), write=True), MODEL), EYE)
    desk.enrol(Photograph("Ann.png", picture("Ann")), "Ann")
    with serve_page(desk, 0.9, MODEL.thresholds) as address:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", address)
        assert found is not None
        yield Server(int(found[1]), found[2], desk)


def picture(name: str) -> bytes:
    return bytes(cv2.imencode(".png", photograph((COLOURS[name], 30, 20))[..., ::-1])[1])


def form(data: bytes, name: str = "Ann.png") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return head.encode() + data + b"\r\n--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def ask(
    server: Server,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    token: bool = True,
) -> tuple[int, dict[str, str], bytes]:
    """One request with the headers as given; answers that do not end are cut off after their first part."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    lines = {"Host": f"127.0.0.1:{server.port}", "Content-Length": str(len(body))}
    lines |= {"Authorization": f"Bearer {server.token}"} if token else {}
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**lines, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        held = "event-stream" in response.headers.get("content-type", "")
        return response.status, {k.lower(): v for k, v in response.headers.items()}, b"" if held else response.read()
    finally:
        connection.close()


def routes() -> list[tuple[str, set[str]]]:
    """Path and methods of every route that Gradio has."""
    desk: Any = type("Nobody", (), {"names": []})()
    (mount,) = gradio_app(desk, Photographs(), 0.5, {}, True).routes
    found = list(mount.app.routes)
    for route in found:
        found += getattr(getattr(route, "original_router", None), "routes", [])  # FastAPI's way to include a router
    return [(route.path, getattr(route, "methods", None) or {"GET"}) for route in found if hasattr(route, "path")]


@pytest.fixture(scope="module")
def addresses() -> list[tuple[str, str]]:
    """Method and path of every route, with something in place of its parameters, and POST of all of them."""
    filled = [(re.sub(r"\{[^}]*\}", "x", path), methods) for path, methods in routes()]
    assert len(filled) > 60
    return sorted({(method, path) for path, methods in filled for method in (*methods, "POST", "OPTIONS")})


def test_only_what_the_page_needs_is_within_reach() -> None:
    reached = {path for path, _ in routes() if PATHS.fullmatch(re.sub(r"\{[^}]*\}", "x", path))}
    reached |= {path for path, _ in routes() if PATHS.fullmatch(re.sub(r"\{[^}]*\}", "js/x.js", path))}
    assert reached == OPEN
    for path in ("file=http://evil.example/x", "file=/etc/passwd", "proxy=http://evil.example", "call/../file=x"):
        assert PATHS.fullmatch(f"/gradio_api/{path}") is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_rebinding_and_other_pages(
    server: Server, addresses: list[tuple[str, str]], headers: dict[str, str], status: int
) -> None:
    lines = {name: value.format(port=server.port) for name, value in headers.items()}
    for method, path in addresses:
        answer, sent, _ = ask(server, path, method, lines)  # even with the token
        assert answer == (405 if method == "OPTIONS" and status != 421 else status), (method, path)
        assert not [name for name in sent if name.startswith("access-control")]
        assert "frame-ancestors 'none'" in sent["content-security-policy"]


def test_without_the_token(server: Server, addresses: list[tuple[str, str]]) -> None:
    for method, path in addresses:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Cookie": f"marginface-{server.port}=x"}):
            status, sent, body = ask(server, path, method, headers, token=False)
            assert status in (401, 404, 405), (method, path)
            assert "set-cookie" not in sent
            assert b"Ann" not in body
    assert ask(server, "/gradio_api/upload", "POST", FORM, form(picture("Ann")), token=False)[0] == 401


def test_no_answer_is_for_other_origins(server: Server) -> None:
    for headers in ({}, {"Origin": f"http://127.0.0.1:{server.port}"}):
        for path in ("/", "/config", "/gradio_api/info", "/theme.css", "/nowhere"):
            _, sent, _ = ask(server, path, headers=headers)
            assert not [name for name in sent if name.startswith("access-control")]
            assert sent["x-content-type-options"] == "nosniff"
            assert sent["cross-origin-resource-policy"] == "same-origin"
    policy = ask(server, "/")[1]["content-security-policy"]
    assert "script-src 'self' 'nonce-" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_uploads_over_the_limits(server: Server) -> None:
    large = form(bytes(33 << 20))
    status, _, text = ask(server, "/gradio_api/upload", "POST", FORM, large)
    assert (status, text) == (413, b"The request is larger than 32 MiB; give a smaller file.")
    assert ask(server, "/gradio_api/queue/join", "POST", {}, b" " * (2 << 20))[0] == 413
    two = form(picture("Ann"))[: -len(b"--b--\r\n")] + form(picture("Bob"))
    assert ask(server, "/gradio_api/upload", "POST", FORM, two)[0] == 400
    assert ask(server, "/gradio_api/upload", "POST", FORM, form(picture("Ann")))[0] == 200  # it still answers


def call(server: Server, name: str, *data: Any) -> tuple[str, Any]:
    """The event and the data with which a call of the API ends."""
    _, _, body = ask(server, f"/gradio_api/call/{name}", "POST", {}, json.dumps({"data": data}).encode())
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    lines = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", f"/gradio_api/call/{name}/{json.loads(body)['event_id']}", headers=lines)
    events = re.findall(r"event: (\w+)\ndata: (.*)\n", connection.getresponse().read().decode())
    connection.close()
    return events[-1][0], json.loads(events[-1][1])


@pytest.mark.parametrize("path", ["/etc/passwd", "{here}", "http://127.0.0.1:{port}/x.png", "file:///etc/passwd", 3])
def test_a_call_opens_no_file_and_no_address(server: Server, tmp_path: Path, path: Any) -> None:
    (tmp_path / "Ann.png").write_bytes(picture("Ann"))
    with Listener() as listener:
        text = path if isinstance(path, int) else path.format(here=tmp_path / "Ann.png", port=listener.port)
        file = {"path": text, "url": text, "meta": {"_type": "gradio.FileData"}}
        for words in (("recognise", file, 0.9, 0), ("enrol", file, "Bob"), ("erase", file), ("far", file)):
            event, _ = call(server, *words)
            assert event == "error"
            assert ask(server, f"/gradio_api/file={text}")[0] == 404
        assert server.desk.names == ["Ann"]
    assert listener.asked == []


class Listener:
    """A server on a port of its own that notes what it is asked, and answers nothing."""

    def __enter__(self) -> "Listener":
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._note, daemon=True).start()
        return self

    def _note(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                self.asked.append(connection.recv(1000).decode(errors="replace").split("\r\n")[0])

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_the_listener_hears() -> None:
    with Listener() as listener, socket.create_connection(("127.0.0.1", listener.port)) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        connection.recv(1)
    assert listener.asked == ["GET /x HTTP/1.1"]


@pytest.mark.parametrize("name", ["a\nb", "\u202eAnn", "x" * 501, "\x00", "unknown", "\ud800"])
def test_names_that_are_refused(server: Server, name: str) -> None:
    status, _, body = ask(server, "/gradio_api/upload", "POST", FORM, form(picture("Bob")))
    assert status == 200
    event, data = call(server, "enrol", {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}, name)
    assert event == "error"
    assert "name" in json.dumps(data)
    assert server.desk.names == ["Ann"]


def test_hostile_names_in_a_browser(server: Server, tmp_path: Path) -> None:
    (tmp_path / "Ann.png").write_bytes(picture("Ann"))
    hostile = tmp_path / "![x](http:) <img src=x onerror=alert(1)>.txt"
    hostile.write_text("text")
    own = f"http://127.0.0.1:{server.port}/"
    with Listener() as listener, open_browser() as browser:
        names = [name.format(port=listener.port) for name in NAMES]
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(60_000)
        asked: list[str] = []
        dialogs: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(f"{own}?token={server.token}")
        page.get_by_role("tab", name="Enrol").click()
        for name in names:
            page.locator("#enrol-photo input[type=file]").set_input_files(str(tmp_path / "Ann.png"))
            page.locator("#enrol-photo img").wait_for()
            page.locator("#name").get_by_role("textbox").fill(name)
            page.locator("#enrol").click()
            page.locator("#told").get_by_text(f"Photographs of {name}: 1.", exact=False).wait_for()
            page.locator("#enrol-photo img").wait_for(state="detached")
        page.locator("#people input").click()
        page.get_by_role("option").first.wait_for()
        assert set(names) <= {option.strip("✓ \n") for option in page.get_by_role("option").all_inner_texts()}
        page.get_by_role("option").filter(has_text=names[0]).click()
        page.locator("#erase").click()
        page.locator("#sure").get_by_text(f"Erase {names[0]} and all").wait_for()
        page.get_by_role("tab", name="Why?").click()
        page.locator("#why-photo input[type=file]").set_input_files(str(tmp_path / "Ann.png"))
        page.locator("#why-photo img").wait_for()
        page.locator("#explain").click()
        page.locator("#reasons figure").nth(2).wait_for()
        page.get_by_role("tab", name="Recognise").click()
        page.locator("#photo input[type=file]").set_input_files(str(tmp_path / "Ann.png"))
        page.locator("#faces td").first.wait_for()
        page.get_by_label("Remove Image").first.click()
        page.locator("#photo input[type=file]").set_input_files(str(hostile))
        page.locator("#photo-notice").get_by_text(f"{hostile.name}: the image cannot be read").wait_for()
        page.locator("#photo img").wait_for(state="detached")
        page.get_by_role("tab", name="Enrol").click()
        page.locator("#people input").fill(NAMES[1])
        page.keyboard.press("Tab")
        page.locator("#erase").click()
        page.get_by_test_id("toast-text").get_by_text(f"{NAMES[1]} is not enrolled").wait_for()
        page.wait_for_timeout(500)
        assert (
            page.locator("#why img, #told img, #faces img, #sure img, [id$=-notice] img, .toast-wrap img").count() == 0
        )
    assert [url for url in asked if not url.startswith((own, "blob:", "data:"))] == []
    assert (listener.asked, dialogs) == ([], [])


START = """
import sys
sys.path.insert(0, {tests!r})
from recognition import EYE
from marginface import cli
from marginface.commands import demo
demo.open_eye = lambda options: EYE
cli.main(["demo", "--gallery", {gallery!r}, "--threshold", "0.9"])
"""


@pytest.mark.parametrize(
    "ways",
    [{"SIGTERM": 143}, pytest.param({"SIGHUP": 129, "SIGINT": 130, "SIGKILL": -9}, marks=pytest.mark.slow)],
    ids=["SIGTERM", "all others"],
)
def test_no_way_out_leaves_photographs(tmp_path: Path, ways: dict[str, int]) -> None:
    """With a photograph given, each process is ended another way; where it may write, nothing is left."""
    processes = {}
    for way in ways:
        (tmp_path / way).mkdir()
        words = START.format(tests=str(Path(__file__).parent.parent), gallery=str(tmp_path / f"{way}.db"))
        processes[way] = subprocess.Popen(
            [sys.executable, "-c", words],
            env={**os.environ, "TMPDIR": str(tmp_path / way), "GRADIO_TEMP_DIR": ""},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        for way, process in processes.items():
            assert process.stdout is not None
            found = re.match(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", process.stdout.readline())
            assert found is not None, way
            server = Server(int(found[1]), found[2], Any)  # type: ignore[arg-type]
            status, _, body = ask(server, "/gradio_api/upload", "POST", FORM, form(picture("Ann") + bytes(2 << 20)))
            assert status == 200
            file = {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}
            assert call(server, "recognise", file, 0.9, 0)[0] == "complete"
            process.send_signal(getattr(signal, way))
        for way, process in processes.items():
            assert process.wait(30) == ways[way]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    left = {way: [path for path in (tmp_path / way).rglob("*") if path.is_file()] for way in ways}
    assert left == {way: [] for way in ways}
