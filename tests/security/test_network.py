"""Nothing is sent anywhere: every verb runs while connections that lead elsewhere are refused and recorded."""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from marginface.commands import COMMANDS

HERE = Path(__file__).parent
SOURCES = [HERE / "refuse_network", HERE.parent, HERE.parent.parent / "src"]
# What verbs keep in a home: copies of shards and of a model of the Hub, both named by URL or name; the logs of
# Weights & Biases, which --train.logger asked for; the fonts that Lightning's loggers let Matplotlib find.
KEPT_AT_HOME = {".cache/marginface", ".cache/huggingface", ".cache/wandb", ".cache/matplotlib"}
ASKED_BY_FETCH = "ndownloader.figshare.com"
ADDRESS = re.compile(r'inet_addr\("([^"]*)"\)|inet_pton\(AF_INET6, "([^"]*)"')


def run(code: list[str], folder: Path, *wrapper: str) -> subprocess.CompletedProcess[str]:
    """Python in an empty home, without variables such as CI and PYTEST_CURRENT_TEST, which silence telemetry."""
    for name in ("home", "work"):
        (folder / name).mkdir()
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        "NETWORK_LOG": str(folder / "log"),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",  # --train.logger wandb exists to send; what is not its data must not leave
    }
    (folder / "log").touch()
    words = [*wrapper, sys.executable, *code]
    return subprocess.run(words, cwd=folder / "work", env=environment, capture_output=True, text=True, timeout=900)


def kept_at_home(folder: Path) -> set[str]:
    files = (path.relative_to(folder / "home") for path in (folder / "home").rglob("*") if not path.is_dir())
    return {"/".join(file.parts[:2]) for file in files}


def refused(folder: Path) -> set[str]:
    return set((folder / "log").read_text().splitlines())


def test_no_verb_sends_anything(tmp_path: Path) -> None:
    check_every_verb(tmp_path)


@pytest.mark.slow
def test_no_verb_sends_anything_from_native_code_either(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    assert strace, "strace is not installed: apt-get install strace"
    calls = "--trace=connect,sendto,sendmsg,sendmmsg,bind"
    check_every_verb(tmp_path, strace, "-f", "--seccomp-bpf", "-qq", calls, f"--output={tmp_path / 'calls'}")
    addresses = foreign_addresses((tmp_path / "calls").read_text(errors="replace"))
    assert addresses == set()


def check_every_verb(folder: Path, *wrapper: str) -> None:
    done = run([str(HERE / "every_verb.py")], folder, *wrapper)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    verbs = set(re.findall(r"^\$ marginface (\w+)", done.stdout, re.MULTILINE))
    assert verbs == set(COMMANDS), "tests/security/every_verb.py does not try every verb"
    assert refused(folder) == {f"socket.getaddrinfo {ASKED_BY_FETCH}"}
    assert kept_at_home(folder) <= KEPT_AT_HOME


def foreign_addresses(calls: str) -> set[str]:
    """Addresses in the lines of strace that are not of this machine."""
    found = {(four or six).removeprefix("::ffff:") for four, six in ADDRESS.findall(calls)}
    return {address for address in found if not ipaddress.ip_address(address).is_loopback}


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import socket; socket.socket().bind(('', 0))",
        "import urllib.request; urllib.request.urlopen('http://example.org')",
        "import asyncio; asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
        "import subprocess, sys; exit(subprocess.call([sys.executable, '-c', 'import socket; socket.getfqdn()']))",
    ],
)
def test_a_connection_is_refused_and_recorded(code: str, tmp_path: Path) -> None:
    done = run(["-c", code], tmp_path)
    assert (done.returncode == 0) == ("getfqdn" in code)
    assert len(refused(tmp_path)) == 1


def test_loopback_is_neither(tmp_path: Path) -> None:
    code = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1]))
socket.socketpair()
"""
    assert run(["-c", code], tmp_path).returncode == 0
    assert refused(tmp_path) == set()


def test_the_lines_of_strace_are_understood() -> None:
    lines = """
7 connect(8, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
7 connect(9, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.53")}, 16) = 0
8 sendto(9, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 1
8 connect(3, {sa_family=AF_INET, sin_port=htons(7860), sin_addr=inet_addr("127.0.0.1")}, 16 <unfinished ...>
8 connect(3, {sa_family=AF_INET6, sin6_port=htons(7860), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0
8 bind(3, {sa_family=AF_INET6, sin6_port=htons(0), inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr)}, 28) = 0
"""
    assert foreign_addresses(lines) == {"192.0.2.53", "2001:db8::1"}
