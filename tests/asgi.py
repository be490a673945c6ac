"""One request to an ASGI application, without a server."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from marginface.demo.guard import App


class Response(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    app: App,
    path: str,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: Sequence[bytes] = (b"",),
    query: str = "",
    kind: str = "http",
) -> Response:
    """Sends the body in the given pieces."""
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    pieces, sent = list(body), []

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    if sent[0]["type"] == "websocket.close":
        return Response(sent[0]["code"], {}, b"")
    answer = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Response(sent[0]["status"], answer, b"".join(message["body"] for message in sent[1:]))
