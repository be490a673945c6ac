"""Access control for a local web server, as ASGI middleware: host names, origin, token, size of a request.

A server on 127.0.0.1 is within reach of every web page that its user has open. Three things keep those out: the Host
header must name this server, so that DNS rebinding fails; Origin and Sec-Fetch-Site must name the same origin, so that
no other page sends requests; and every request carries a token that is new with each start, in a cookie of
SameSite=Strict or as `Authorization: Bearer TOKEN`. Nothing here depends on what is served.
"""

import contextlib
import hmac
import html
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SAFEGUARDS = {
    b"content-security-policy": b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=(), display-capture=()",
    b"referrer-policy": b"same-origin",  # with no-referrer, browsers send "Origin: null" with forms of our own
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"cache-control": b"no-store",
}
"""Headers of every response; the application may replace the policy and the cache's."""
REPLACEABLE = (b"content-security-policy", b"cache-control")
DROPPED = re.compile(rb"access-control-.*|server|x-forwarded-.*|x-gradio-.*|forwarded|x-real-ip")
"""No answer is for other origins, and no request came through a proxy of ours."""
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
GUESSES, MINUTE = 10, 60.0  # wrong passwords within a minute before all are refused
FORM_BYTES = 4096
UNREAD = 16  # times the limit that is read and dropped of a body over it

DOOR = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>marginface</title><meta name="color-scheme" content="light dark">
<style>body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 30em; margin: 15vh auto; padding: 0 20px }}
input, button {{ font: inherit; padding: 10px 14px; width: 100%; box-sizing: border-box; margin-top: 12px }}
button {{ background: #2563eb; color: #fff; border: 0; border-radius: 6px }} p[role] {{ color: #c0362c }}</style>
<h1>Who is it?</h1>{said}<form method="post" action="/"><label>{label}
<input type="password" name="password" autofocus required></label><button>Enter</button></form></html>"""
DOOR_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
ENTER = '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>marginface</title>'


class TooLarge(Exception):
    """The body of a request is larger than the guard lets through."""


class Guard:
    """Lets requests of this server's own user through to `app` and answers all others itself.

    token: what a request must carry; `?token=TOKEN` on the first page sets the cookie.
    """

    def __init__(
        self,
        app: App,
        hosts: Collection[str],
        port: int,
        paths: re.Pattern[str],
        largest: int,
        password: str = "",
    ) -> None:
        """hosts: names and addresses that a Host header may have besides those of loopback; 0.0.0.0 or :: stands for
        every IP address and this machine's name.

        paths: matches the whole path of what exists, all else is 404. largest: bytes of a request's body.
        password: lets visitors in as the token does; empty for none.
        """
        self.app, self.port, self.paths, self.largest = app, port, paths, largest
        self.token = secrets.token_urlsafe(24)
        self._password = password
        self._cookie = f"marginface-{port}"  # browsers share cookies between the ports of a host
        self._wrong: list[float] = []
        self._any_address = any(_is_address(host) and ipaddress.ip_address(host).is_unspecified for host in hosts)
        self._names = LOOPBACK | {f"[{host}]" if ":" in host else host.lower() for host in hosts}
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _safeguarded(send))
        else:  # no WebSocket is served
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal:
            await reply(send, *refusal)
        elif scope["path"] == "/" and not self._let_in(headers):
            await self._door(scope, receive, send)
        elif not self._let_in(headers):
            await reply(send, 401, "Open the address that `marginface demo` printed; it ends with a token.")
        else:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if not DROPPED.fullmatch(name)]
            await self._pass_on(scope, receive, send)

    def _refusal(self, scope: Message, headers: "Headers") -> tuple[int, str] | None:
        """Status and sentence for what no token could permit."""
        host = headers.only("host").lower()
        if not self._is_here(host):
            return 421, "This address is not one of this page's; open the one that `marginface demo` printed."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are answered."
        site, origin = headers.only("sec-fetch-site"), headers.only("origin")
        opened = (
            (scope["method"], scope["path"]) == ("GET", "/")
            and headers.only("sec-fetch-mode") == "navigate"
            and headers.only("sec-fetch-dest") == "document"
        )
        if origin not in ("", f"http://{host}") or (site not in ("", "same-origin", "none") and not opened):
            return 403, "Requests of other web pages are refused."
        if not self.paths.fullmatch(scope["path"]):
            return 404, "There is nothing at this address."
        return None

    def _is_here(self, host: str) -> bool:
        """Whether a Host header names this server."""
        found = HOST.fullmatch(host)
        if found is None or int(found["port"] or 80) != self.port:
            return False
        return found["name"] in self._names or (self._any_address and _is_address(found["name"].strip("[]")))

    def _let_in(self, headers: "Headers") -> bool:
        scheme, _, given = headers.only("authorization").partition(" ")
        if scheme.lower() == "bearer" and _same(given, self.token):
            return True
        try:
            cookie = SimpleCookie(headers.only("cookie")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self.token)

    async def _door(self, scope: Message, receive: Receive, send: Send) -> None:
        """The first page for those without a cookie: the token in the address or in the form lets them in."""
        cookie = f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict".encode()
        status, said = 401, ""
        if scope["method"] == "POST":
            try:
                form = await read_body(receive, FORM_BYTES)
            except TooLarge:
                form = b""
            given = parse_qs(form.decode("latin-1")).get("password", [""])[0]
            if len(self._recent_guesses()) >= GUESSES:
                status, said = 429, "Too many wrong passwords; wait a minute."
            elif _same(given, self.token) or (self._password and _same(given, self._password)):
                await reply(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie)])
                return
            else:
                self._wrong.append(time.monotonic())
                said = "That is not the password."
        elif _same(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0], self.token):
            # a page, not a redirect: after a link elsewhere browsers keep back the cookie from a redirect
            await reply(send, 200, ENTER, [(b"content-type", b"text/html"), (b"set-cookie", cookie)])
            return
        label = "Password" if self._password else "The token that `marginface demo` printed"
        text = DOOR.format(said=f'<p role="alert">{said}</p>' if said else "", label=html.escape(label))
        header = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", DOOR_POLICY)]
        await reply(send, status, text, header)

    def _recent_guesses(self) -> list[float]:
        self._wrong = [moment for moment in self._wrong if time.monotonic() - moment < MINUTE]
        return self._wrong

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        count, more, started = 0, True, False

        async def counted() -> Message:
            nonlocal count, more
            message = await receive()
            count += len(message.get("body", b""))
            more = message.get("more_body", False)
            if count > self.largest:
                raise TooLarge
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, sent)
        except TooLarge:
            while more and count < UNREAD * self.largest:  # browsers read no answer before they have sent all
                with contextlib.suppress(TooLarge):
                    await counted()
            if not started:
                await reply(send, 413, self._too_large())

    def _too_large(self) -> str:
        return f"The request is larger than {self.largest >> 20} MiB; give a smaller file."


class Headers:
    """The header lines of a request."""

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._lines = lines

    def only(self, name: str) -> str:
        """The value of a header; "" when it is missing, and a value that nothing matches when it is there twice."""
        values = [value.decode("latin-1") for key, value in self._lines if key == name.encode()]
        return values[0] if len(values) == 1 else "," * len(values)


async def read_body(receive: Receive, largest: int) -> bytes:
    """A request's body, whole. Raises TooLarge beyond `largest` bytes."""
    parts, count, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        count += len(parts[-1])
        if count > largest:
            raise TooLarge
        more = message.get("more_body", False)
    return b"".join(parts)


async def reply(send: Send, status: int, text: str | bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = text.encode() if isinstance(text, str) else text
    lines = [
        (b"content-length", str(len(body)).encode()),
        *(headers or [(b"content-type", b"text/plain; charset=utf-8")]),
    ]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _safeguarded(send: Send) -> Send:
    """Adds SAFEGUARDS to the response's header and takes out what would open it to other origins."""

    async def safeguarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            lines = [(name.lower(), value) for name, value in message.get("headers", [])]
            kept = [
                (name, value)
                for name, value in lines
                if not DROPPED.fullmatch(name) and (name in REPLACEABLE or name not in SAFEGUARDS)
            ]
            given = {name for name, _ in kept}
            message["headers"] = [*kept, *((name, value) for name, value in SAFEGUARDS.items() if name not in given)]
        await send(message)

    return safeguarded


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
