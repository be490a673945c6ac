"""Who gets through to the page: host names, origins, tokens, sizes."""

import re
from typing import Any

import pytest

from asgi import ask
from marginface.demo import guard as guards
from marginface.demo.guard import SAFEGUARDS, Guard, Message, Receive, Send, read_body

HOST = ("host", "127.0.0.1:7860")


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answers with the headers and the body that reached it, open to every origin."""
    body = await read_body(receive, 1 << 20)
    seen = b"\n".join(name for name, _ in scope["headers"])
    lines = [(b"Access-Control-Allow-Origin", b"*"), (b"X-Frame-Options", b"ALLOW"), (b"Server", b"some")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": seen + b"\n\n" + body})


def make(hosts: set[str] | None = None, port: int = 7860, password: str = "") -> Guard:
    return Guard(app, hosts or {"127.0.0.1"}, port, re.compile("/|/call|/file=.+"), 1000, password)


def bearer(guard: Guard) -> tuple[str, str]:
    return "authorization", f"Bearer {guard.token}"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860"])
def test_names_of_this_machine(host: str) -> None:
    guard = make()
    assert ask(guard, "/call", headers=[("host", host), bearer(guard)]).status == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"], ["evil.example:7860"], ["127.0.0.1"], ["127.0.0.1:7861"], ["localhost.:7860"],
        ["localhost:7860:7860"], ["127.0.0.1.evil.example:7860"], ["evil@127.0.0.1:7860"], ["127.0.0.1:7860/"],
        ["192.168.1.2:7860"], ["[::2]:7860"], ["127.0.0.1:07860x"], ["127.0.0.1:"], ["127.0.0.1:\xb27860"], [""], [],
        ["127.0.0.1:7860", "127.0.0.1:7860"], ["127.0.0.1:7860", "evil.example"],
    ],
)  # fmt: skip
def test_rebinding(hosts: list[str]) -> None:
    guard = make()
    answer = ask(guard, "/call", headers=[*(("host", host) for host in hosts), bearer(guard)])
    assert answer.status == 421
    assert answer.body.count(b"\n") == 0


def test_hosts_of_a_network() -> None:
    guard = make({"0.0.0.0"})
    for host in ("192.168.1.2:7860", "[fe80::1]:7860", "localhost:7860"):
        assert ask(guard, "/call", headers=[("host", host), bearer(guard)]).status == 200
    assert ask(guard, "/call", headers=[("host", "evil.example:7860"), bearer(guard)]).status == 421
    named = make({"Box.local", "192.168.1.2"}, port=80)
    for host, status in (("box.local", 200), ("192.168.1.2:80", 200), ("192.168.1.3", 421), ("box.local:81", 421)):
        assert ask(named, "/call", headers=[("host", host), bearer(named)]).status == status


@pytest.mark.parametrize(
    "lines",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:7860"}, {"origin": "http://localhost:7860"}, {"origin": "http://127.0.0.1:7860/"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "odd"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_other_pages(lines: dict[str, str], method: str) -> None:
    guard = make()
    for path in ("/call", "/file=x"):
        assert ask(guard, path, method, [HOST, bearer(guard), *lines.items()]).status == 403


def test_this_page() -> None:
    guard = make()
    for lines in ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert ask(guard, "/call", "POST", [HOST, bearer(guard), *lines.items()]).status == 200
    twice = [("origin", "http://127.0.0.1:7860")] * 2
    assert ask(guard, "/call", "POST", [HOST, bearer(guard), *twice]).status == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(guard, "/", headers=[HOST, bearer(guard), *link.items()]).status == 200
    assert ask(guard, "/", "POST", [HOST, bearer(guard), *link.items()]).status == 403
    assert ask(guard, "/", headers=[HOST, bearer(guard), *{**link, "sec-fetch-dest": "iframe"}.items()]).status == 403


@pytest.mark.parametrize(
    "line",
    [
        None, ("authorization", "Bearer "), ("authorization", "Bearer x"), ("authorization", "Basic {}"),
        ("authorization", "{}"), ("cookie", "marginface-7860="), ("cookie", "marginface-7861={}"),
        ("cookie", "marginface-7860=x; other={}"), ("cookie", '"'), ("cookie", "marginface-7860={}x"),
        ("authorization", "Bearer \xe9"),
    ],
)  # fmt: skip
def test_no_token(line: tuple[str, str] | None) -> None:
    guard = make()
    given = [] if line is None else [(line[0], line[1].format(guard.token))]
    answer = ask(guard, "/call", "POST", [HOST, *given], query=f"token={guard.token}")
    assert answer.status == 401
    assert guard.token not in answer.body.decode()


def test_the_token_in_the_address_becomes_a_cookie() -> None:
    guard = make()
    closed = ask(guard, "/", headers=[HOST])
    assert closed.status == 401
    assert b"<form" in closed.body
    assert "set-cookie" not in closed.headers
    assert ask(guard, "/", headers=[HOST], query="token=x").status == 401
    opened = ask(guard, "/", headers=[HOST], query=f"token={guard.token}")
    name, *attributes = opened.headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert b"refresh" in opened.body
    assert guard.token.encode() not in opened.body
    cookies = [("cookie", f"a=b; {name}; c=d")]
    assert ask(guard, "/call", "POST", [HOST, *cookies]).status == 200
    assert ask(make(), "/call", "POST", [HOST, *cookies]).status == 401  # another start


def test_password(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, now = make(password="ein Passwörtchen & mehr"), [1000.0]
    monkeypatch.setattr(guards.time, "monotonic", lambda: now[0])

    def enter(body: bytes) -> Any:
        return ask(guard, "/", "POST", [HOST, ("origin", "http://127.0.0.1:7860")], [body])

    right = b"password=ein+Passw%C3%B6rtchen+%26+mehr"
    answer = enter(right)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert guard.token in answer.headers["set-cookie"]
    assert enter(b"password=" + guard.token.encode()).status == 303
    wrong = [
        b"",
        b"password=",
        b"password=x",
        b"\xff\xfe",
        b"password=" + b"x" * 9000,
        b"token=" + guard.token.encode(),
    ]
    for body in [*wrong, b"password=y", b"password=y", b"password=y", b"password=y"]:
        answer = enter(body)
        assert (answer.status, b"That is not the password." in answer.body) == (401, True)
        assert "set-cookie" not in answer.headers
    assert (enter(b"password=y").status, enter(right).status) == (429, 429)  # guessing is slow
    now[0] += 61
    assert enter(right).status == 303
    assert ask(make(), "/", "POST", [HOST], [b"password="]).status == 401  # an empty one opens nothing
    assert ask(guard, "/call", headers=[HOST, ("authorization", "Bearer ein Passwörtchen & mehr")]).status == 401


def test_every_answer_is_safeguarded() -> None:
    guard = make()
    answers = [
        ask(guard, "/call", headers=[HOST, bearer(guard), ("origin", "http://127.0.0.1:7860")]),
        ask(guard, "/call", headers=[HOST]),
        ask(guard, "/call", headers=[("host", "evil.example")]),
        ask(guard, "/", headers=[HOST]),
        ask(guard, "/", headers=[HOST], query=f"token={guard.token}"),
    ]
    for answer in answers:
        assert SAFEGUARDS.keys() <= {name.encode() for name in answer.headers}
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]


def test_methods_and_paths() -> None:
    guard = make()
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"):
        assert ask(guard, "/call", method, [HOST, bearer(guard)]).status == 405
    for path in ("/docs", "/call/", "/call\n", "//", "/file="):
        assert ask(guard, path, headers=[HOST, bearer(guard)]).status == 404
    assert ask(guard, "/call", headers=[HOST, bearer(guard)], kind="websocket").status == 1008


def test_a_body_over_the_limit() -> None:
    guard = make()
    lines = [HOST, bearer(guard)]
    assert ask(guard, "/call", "POST", lines, [b"x" * 500, b"x" * 500]).status == 200
    for body in ([b"x" * 1001], [b"x"] * 1001, [b"x" * 600] * 2):
        answer = ask(guard, "/call", "POST", lines, body)
        assert answer.status == 413
        assert SAFEGUARDS.keys() <= {name.encode() for name in answer.headers}


def test_what_a_proxy_would_say_does_not_arrive() -> None:
    guard = make()
    said = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-for", "forwarded", "x-real-ip", "x-gradio-user"]
    seen = ask(guard, "/call", headers=[HOST, bearer(guard), *((name, "evil.example") for name in said)]).body
    assert seen == b"host\nauthorization\n\n"
