"""The page behind its guard on a port of this machine. Called by `marginface demo`.

Gradio is mounted, not launched: its own server, share links, version check and CORS headers are not used, and of its
hundred routes those of this page are within reach.
"""

import ipaddress
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from marginface.demo.desk import Desk
from marginface.demo.guard import App, Guard, Message, Receive, Send
from marginface.demo.page import CSS, SCRIPT, make_page, make_theme
from marginface.demo.photographs import LARGEST, PhotographRoutes, Photographs
from marginface.errors import InputError
from marginface.files import temporary_folder
from marginface.optional_imports import load_library

PORTS = range(7860, 7960)
SHORTEST = 8  # characters of a password
PATHS = re.compile(
    r"/|/(assets|static/js|static/img)/[\w./-]+|/(config|theme\.css|favicon\.ico|manifest\.json)"
    r"|/gradio_api/(info|upload|upload_progress|cancel|queue/join|queue/data)"
    r"|/gradio_api/(heartbeat/\w+|run/\w+|call/(?!v2/)\w+(/\w+)?|file=[\w-]+)"
)
"""What the page and its API are made of. Gradio's proxy, file and component servers are not among it."""
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; "
    "manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


@contextmanager
def serve_page(
    desk: Desk,
    threshold: float,
    thresholds: Mapping[float, float],
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str = "",
) -> Iterator[str]:
    """Serves the page while the block runs; yields its address with this start's token.

    port: None takes a free one from 7860 on. password: what visitors give who do not have the token. Raises InputError
    for a host or port that cannot be listened on, and for a host beyond this machine without a password.
    """
    with _listen(host, port, password) as listener:
        bound, number = listener.getsockname()[:2]
        local = ipaddress.ip_address(bound).is_loopback
        photographs = Photographs()
        app = PagePolicy(gradio_app(desk, photographs, threshold, thresholds, local))
        guard = Guard(PhotographRoutes(app, photographs), {host, bound}, number, PATHS, LARGEST + (1 << 16), password)
        with _running(guard, listener):
            shown = "127.0.0.1" if ipaddress.ip_address(bound).is_unspecified else host
            yield f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/?token={guard.token}"


def gradio_app(
    desk: Desk, photographs: Photographs, threshold: float, thresholds: Mapping[float, float], camera: bool
) -> Any:
    """The FastAPI application that Gradio makes of the page, with every route of Gradio's."""
    gradio, fastapi = load_library("gradio"), load_library("fastapi")
    with temporary_folder() as folder:  # Gradio makes one here for its editor, and nothing later
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        return gradio.mount_gradio_app(
            fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
            make_page(gradio, desk, photographs, threshold, thresholds, camera),
            "/",
            footer_links=[],
            run_history=False,  # it would keep photographs in the browser
            show_error=False,  # the text of errors that are not ours
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            theme=make_theme(gradio),
            css=CSS,
        )


class PagePolicy:
    """Gives the page of `app` a policy by which its own scripts run, and none that got into it by whatever way."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [line for line in scope["headers"] if line[0] != b"accept-encoding"]
        nonce = secrets.token_urlsafe(16)
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            start.update(message if message["type"] == "http.response.start" else {})
            parts.append(message.get("body", b""))

        await self._app(scope, receive, collect)
        body = b"".join(parts).replace(b"<head>", f"<head><script>{SCRIPT}</script>".encode(), 1)
        body = body.replace(b"<script", f'<script nonce="{nonce}"'.encode())
        policy = (b"content-security-policy", POLICY.format(nonce=nonce).encode())
        lines = [line for line in start["headers"] if line[0] != b"content-length"]
        await send({**start, "headers": [*lines, (b"content-length", str(len(body)).encode()), policy]})
        await send({"type": "http.response.body", "body": body})


def check_reach(host: str, password: str) -> tuple[int, str]:
    """Address family and address of a host. Raises InputError for one beyond this machine without a password."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host or "?", None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host!r} is no address of this machine; leave it out for 127.0.0.1") from error
    if not ipaddress.ip_address(address[0]).is_loopback and len(password) < SHORTEST:
        raise InputError(
            f"--host {host} shows the page to the whole network, where everybody could enrol and erase people: "
            f"give a --password of {SHORTEST} characters or more"
        )
    return family, str(address[0])


def _listen(host: str, port: int | None, password: str) -> socket.socket:
    """A listening socket. Raises InputError as `check_reach` does, and for ports that cannot be had."""
    family, address = check_reach(host, password)
    reason = ""
    for number in PORTS if port is None else [port]:
        try:
            return socket.create_server((address, number), family=family)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
    ports = f"{PORTS[0]} to {PORTS[-1]}" if port is None else str(port)
    raise InputError(f"port {ports} of {host} cannot be listened on ({reason}); give another --port or --host")


@contextmanager
def _running(app: App, listener: socket.socket) -> Iterator[None]:
    uvicorn = load_library("uvicorn")
    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,  # which would have the token in it
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise InputError("the page's server did not start; what it printed above says why")
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join()
