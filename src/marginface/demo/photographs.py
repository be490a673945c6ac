"""Visitors' photographs, in memory alone: taken in, shown again to who gave them, forgotten when no longer used.

Gradio would write each one to the disk, once as it came and once as it was understood, and would fetch and read other
files when told to. The routes here take its place, and nothing that a browser sends is a file to Gradio any more.
"""

import asyncio
import json
import re
import secrets
import threading
import time
from typing import Any

from marginface.demo.guard import App, Message, Receive, Send, TooLarge, read_body, reply
from marginface.errors import InputError
from marginface.gallery.photos import Photograph
from marginface.loading.decode import MAX_PIXELS
from marginface.optional_imports import load_library
from marginface.readers.image_size import image_size

LARGEST = 32 << 20  # bytes of one photograph
MOST, IN_TOTAL = 64, 256 << 20  # photographs and bytes of all that are kept; the one used longest ago goes first
UNUSED = 600.0  # seconds until a photograph is forgotten
TOO_LARGE = "too-large"  # name of what the page did not send
OVERSIZED = Photograph(TOO_LARGE, b"")
CALL_BYTES = 1 << 20  # of a request that is no photograph
API = "/gradio_api"
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, what reverses the order of letters, and halves of a character."""
TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"BM": "image/bmp", b"RIFF": "image/webp"}


class Photographs:
    """Photographs by a name that cannot be guessed. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Photograph, float]] = {}

    def keep(self, photograph: Photograph) -> str:
        """Returns the name under which `find` has it."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = photograph, time.monotonic()
        self.tidy()
        return key

    def find(self, key: object) -> Photograph:
        """Raises InputError for one that was never there or is forgotten; `check` refuses TOO_LARGE."""
        if key == TOO_LARGE:
            return OVERSIZED
        with self._lock:
            if not isinstance(key, str) or key not in self._kept:
                raise InputError("The photograph is no longer kept; give it once more.")
            photograph, _ = self._kept.pop(key)
            self._kept[key] = photograph, time.monotonic()  # the last one again
            return photograph

    def tidy(self) -> None:
        """Forgets what was not used for UNUSED seconds, and the oldest beyond MOST and IN_TOTAL."""
        with self._lock:
            total = sum(len(photograph.data) for photograph, _ in self._kept.values())
            for key, (photograph, used) in list(self._kept.items()):
                if len(self._kept) <= MOST and total <= IN_TOTAL and time.monotonic() - used < UNUSED:
                    return
                total -= len(photograph.data)
                del self._kept[key]


class PhotographRoutes:
    """The routes of Gradio's that have to do with files; `app`, Gradio's, gets every other request."""

    def __init__(self, app: App, photographs: Photographs) -> None:
        self._app, self._photographs = app, photographs

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == f"{API}/upload":
            await self._take(scope, receive, send)
        elif path == f"{API}/upload_progress":  # what the page asks besides; a photograph is there at once
            await reply(send, 200, 'data: {"msg": "done"}\n\n', [(b"content-type", b"text/event-stream")])
        elif path.startswith(f"{API}/file="):
            await self._show(path.removeprefix(f"{API}/file="), send)
        elif path and scope["method"] == "POST":
            await self._call(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _take(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers with the list of names that Gradio's page expects, one long."""
        parsers, requests = load_library("starlette.formparsers"), load_library("starlette.requests")
        request = requests.Request(scope, receive)
        parser = parsers.MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=1)
        parser.spool_max_size = LARGEST * 2  # never to the disk
        try:
            (file,) = [part for _, part in (await parser.parse()).multi_items() if hasattr(part, "filename")]
            data = await file.read()
        except (parsers.MultiPartException, KeyError, ValueError):
            await reply(send, 400, "Send one photograph, as multipart/form-data.")
            return
        if len(data) > LARGEST:
            raise TooLarge
        key = self._photographs.keep(Photograph(shown_name(file.filename), data))
        asyncio.get_running_loop().call_later(UNUSED + 1, self._photographs.tidy)
        await reply(send, 200, json.dumps([key]), [(b"content-type", b"application/json")])

    async def _show(self, key: str, send: Send) -> None:
        try:
            data = self._photographs.find(key).data
        except InputError as error:
            await reply(send, 404, str(error))
            return
        kind = next((kind for start, kind in TYPES.items() if data.startswith(start)), "application/octet-stream")
        await reply(send, 200, data, [(b"content-type", kind.encode())])

    async def _call(self, scope: Message, receive: Receive, send: Send) -> None:
        """Gradio gets the call without what would make a file of any part of it."""
        try:
            body = await read_body(receive, CALL_BYTES)
            call = json.loads(body) if body else {}
            body = json.dumps(_without_files(call)).encode()
        except (ValueError, RecursionError):
            await reply(send, 400, "The request is not JSON.")
            return
        scope["headers"] = [
            *((name, value) for name, value in scope["headers"] if name not in (b"content-length", b"content-type")),
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
        ]
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


def check(photograph: Photograph) -> None:
    """Raises InputError for what is no photograph or too large, from its header alone."""
    if photograph is OVERSIZED:
        raise InputError(f"The photograph is larger than {LARGEST >> 20} MiB; give a smaller file.")
    try:
        height, width = image_size(photograph.data)
    except ValueError as error:
        raise InputError(f"{photograph.name}: the image cannot be read: {error}.") from error
    if height * width > MAX_PIXELS:
        raise InputError(f"{photograph.name}: it has {width}×{height} pixels, more than the {MAX_PIXELS:,} allowed.")


def shown_name(name: str) -> str:
    """The last part of a file's path, as one line of at most 80 characters."""
    plain = UNSEEN.sub("", re.split(r"[/\\]", name)[-1])
    return (plain if len(plain) <= 80 else f"{plain[:40]}…{plain[-39:]}") or "photograph"


def _without_files(value: Any) -> Any:
    """JSON with no "meta", by which Gradio would know a file to open or an address to fetch."""
    if isinstance(value, dict):
        return {key: _without_files(part) for key, part in value.items() if key != "meta"}
    return [_without_files(part) for part in value] if isinstance(value, list) else value
