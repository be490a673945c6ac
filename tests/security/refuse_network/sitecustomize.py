"""Refuse and record every connection and look-up that is not of this machine: loaded by PYTHONPATH at Python's start.

Python tells its audit hooks of every call of the module `socket`, whichever library makes it. Each one that leads
elsewhere fails and leaves a line in the file that NETWORK_LOG names. Code in C, Rust or Go that opens sockets by itself
is not seen here, but by strace.
"""

import ipaddress
import os
import sys

LOG = os.environ["NETWORK_LOG"]
ADDRESSES = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
NAMES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def is_loopback(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if text in (None, "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(text)).is_loopback
    except ValueError:
        return False


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ADDRESSES and isinstance(arguments[1], tuple):  # of a path, the socket stays on this machine
        host = arguments[1][0]
    elif event in NAMES:
        host = arguments[0]
    else:
        return
    if not is_loopback(host):
        with open(LOG, "a") as log:  # noqa: PTH123 -- pathlib may not have been imported yet
            log.write(f"{event} {host}\n")
        raise OSError(f"{event} {host}: only loopback is allowed here")


sys.addaudithook(refuse)
