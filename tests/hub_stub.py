"""The part of the Hugging Face Hub's HTTP interface that publishing and fetching a model needs, on the loopback."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """repositories: name -> file -> content. refused: names answered with a status."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def dispatch(self) -> None:
            path, sent = urlparse(self.path).path, self.body()
            hub.asked.append(f"{self.command} {path}")
            for name, (status, code) in hub.refused.items():
                if name in path:
                    return self.answer({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})
            if path == "/api/repos/create":
                asked = json.loads(sent)
                name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
                hub.repositories.setdefault(name, {})
                return self.answer({"url": f"{hub.url}/{name}", "name": name, "id": name})
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if path.startswith("/upload/"):
                hub.large[path.rpartition("/")[2]] = sent
                return self.answer({})
            if path.endswith(".git/info/lfs/objects/batch"):
                return self.answer(
                    {"transfer": "basic", "objects": [self.offer(o) for o in json.loads(sent)["objects"]]}
                )
            name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
            if name not in hub.repositories:
                return self.answer({"error": "none"}, 404, {"X-Error-Code": "RepoNotFound"})
            if "/api/models/" in path:
                return self.api(path, sent, hub.repositories[name], name)
            return self.file(hub.repositories[name].get(path.rpartition("/")[2]))

        def offer(self, wanted: dict[str, Any]) -> dict[str, Any]:
            return {**wanted, "actions": {"upload": {"href": f"{hub.url}/upload/{wanted['oid']}", "header": {}}}}

        def api(self, path: str, sent: bytes, files: dict[str, bytes], name: str) -> None:
            if "/preupload/" in path:
                modes = [
                    {"path": f["path"], "uploadMode": "lfs" if "safetensors" in f["path"] else "regular",
                     "shouldIgnore": False}
                    for f in json.loads(sent)["files"]
                ]  # fmt: skip
                return self.answer({"files": modes})
            if "/commit/" in path:
                for line in map(json.loads, sent.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        files[value["path"]] = hub.large[value["oid"]]
                address = f"{hub.url}/{name}/commit/{SHA}"
                return self.answer({"success": True, "commitOid": SHA, "commitUrl": address, "hookOutput": ""})
            listed = [{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files.items()]
            if "/tree/" in path:
                return self.answer(listed)
            siblings = [{"rfilename": key, "size": len(value)} for key, value in files.items()]
            return self.answer(
                {"id": name, "modelId": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []}
            )

        def file(self, content: bytes | None) -> None:
            if content is None:
                return self.answer({}, 404, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(content).hexdigest()
            return self.answer(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": SHA})

        do_GET = do_POST = do_PUT = do_HEAD = dispatch

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
