"""Shards from a server: fetched once, whole or not at all, by several processes together."""

import http.server
import multiprocessing
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.loading.loader import DataConfig, Loader
from marginface.readers import open_reader


class Server:
    """Serves a folder; counts what was asked for, and breaks the connection in the middle of what is in `broken`."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.broken: set[str] = set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                server.asked[name] += 1
                if not (folder / name).is_file():
                    self.send_error(404)
                    return
                data = (folder / name).read_bytes()
                self.send_response(200)
                self.end_headers()  # without a length, as object stores that pack on the fly
                self.wfile.write(data[: len(data) // 2] if name in server.broken else data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Five shards of eight images of four people."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    for shard in range(5):
        with tarfile.open(tmp_path / f"served/train-{shard:03d}.tar", "w") as archive:
            for image in range(8):
                number = 8 * shard + image
                header = f"P6 4 4 255\n{number:048d}".encode()
                for suffix, content in ((".ppm", header), (".cls", b"%d" % (number % 4))):
                    entry = tarfile.TarInfo(f"{number:06d}{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, BytesIO(content))
    server = Server(tmp_path / "served")
    yield server
    server.close()


def images(reader: object) -> list[bytes]:
    return [record.image for record in reader.read(range(len(reader)))]


def test_shards_of_a_server_are_fetched_once(server: Server, tmp_path: Path) -> None:
    spec = f"{server.url}/train-{{000..004}}.tar"
    local = images(open_reader(tmp_path / "served"))
    reader = open_reader(spec)
    assert images(reader) == local
    assert reader.labels.tolist() == [number % 4 for number in range(40)]
    assert images(open_reader(spec)) == local
    assert server.asked == {f"train-{shard:03d}.tar": 1 for shard in range(5)}
    (tmp_path / "urls.txt").write_text("".join(f"{server.url}/train-{shard:03d}.tar\n" for shard in (3, 1)))
    assert images(open_reader(tmp_path / "urls.txt")) == local[24:32] + local[8:16]
    assert set(server.asked.values()) == {1}
    piped = open_reader(f"pipe:cat {tmp_path}/served/train-002.tar")
    assert images(piped) == local[16:24]


def test_training_goes_on_in_the_middle_of_an_epoch(server: Server) -> None:
    reader = open_reader(f"{server.url}/train-{{000..004}}.tar")
    config = DataConfig(train=server.url, batch_size=8, size=8, resize=True, workers=1)
    whole = Loader(reader, config, seed=3).start(0)
    seen = [next(whole) for _ in range(10)]
    assert all(sorted(np.concatenate([b.indices for b in seen[i : i + 5]])) == list(range(40)) for i in (0, 5))
    for rank in (0, 1):
        later = Loader(reader, config, seed=3, rank=rank, world_size=2).start(7)
        batch = next(later)
        assert (batch.images == seen[7].images[4 * rank : 4 * rank + 4]).all()
        later.close()
    whole.close()


def test_what_is_cut_short_is_fetched_again_and_the_rest_is_not(server: Server, tmp_path: Path) -> None:
    spec = f"{server.url}/train-{{000..004}}.tar"
    server.broken = {"train-002.tar"}
    with pytest.raises(InputError, match=r"train-002\.tar: was cut short; run the same command again"):
        open_reader(spec)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    server.broken = set()
    assert len(open_reader(spec)) == 40
    assert server.asked["train-002.tar"] == 2
    assert all(count == 1 for name, count in server.asked.items() if name != "train-002.tar")


def test_processes_share_the_work(server: Server) -> None:
    spec = f"{server.url}/train-{{000..004}}.tar"
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=open_reader, args=(spec,)) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert len(open_reader(spec)) == 40
    assert server.asked == {f"train-{shard:03d}.tar": 1 for shard in range(5)}


def test_what_cannot_be_fetched_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/train-009\.tar: cannot be fetched: "):
        open_reader(f"{server.url}/train-009.tar")
    (tmp_path / "served/page.tar").write_text("<html>")
    with pytest.raises(InputError, match=r"/page\.tar: is no tar file"):
        open_reader(f"{server.url}/page.tar")
    with pytest.raises(InputError, match=r"pipe:false: (cannot be fetched|is no tar)"):
        open_reader("pipe:false")
    (tmp_path / "urls.txt").write_text(f"{server.url}/train-000.tar\npipe:touch {tmp_path}/executed\n")
    with pytest.raises(InputError, match=r"urls\.txt: line 2 is a command; a file must not run any"):
        open_reader(tmp_path / "urls.txt")
    assert not (tmp_path / "executed").exists()
    (tmp_path / "urls.txt").write_text(f"{server.url}/train-000.tar\nshard.tar\n")
    with pytest.raises(InputError, match=r"urls\.txt: line 2 is no URL: 'shard\.tar'"):
        open_reader(tmp_path / "urls.txt")
