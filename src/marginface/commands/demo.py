"""`marginface demo`: a local web page that recognises people."""

import threading

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.faces import add_eye, add_gallery, add_threshold, open_eye, open_gallery, threshold_of
from marginface.commands.numbers import Port
from marginface.demo.desk import Desk
from marginface.demo.server import check_reach, serve_page
from marginface.errors import InputError
from marginface.terminal import open_console, print_line
from marginface.untrusted import read_text


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        type=str,
        default="127.0.0.1",
        help="address or name to serve at; 0.0.0.0 is every address of this machine, and needs --password",
    )
    parser.add_argument("--port", type=Port, default=None, help="by default the first free one from 7860 on")
    parser.add_argument(
        "--password",
        type=str,
        default="",
        help="for visitors from other machines, who may then enrol and erase; @FILE reads it from a file",
    )
    add_gallery(parser)
    add_eye(parser)
    add_threshold(parser)


def run(options: Namespace, command: str) -> None:
    password = _password(options.password)
    check_reach(options.host, password)  # before the models are loaded
    eye = open_eye(options)
    threshold, _ = threshold_of(options, eye.model)
    where = options.host, options.port, password
    with (
        open_gallery(options, eye.model, write=True, make=True) as gallery,
        serve_page(Desk(gallery, eye), threshold, eye.model.thresholds, *where) as address,
    ):
        console = open_console()
        print_line(f"{address} (Ctrl-C ends it)", console)
        if password:
            print_line(
                "Whoever has the password can see who is enrolled, enrol and erase; "
                "photographs and password cross the network unencrypted.",
                console,
            )
        threading.Event().wait()


def _password(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return read_text(given[1:], 4096).strip()
    except OSError as error:
        raise InputError(f"--password {given}: {error.strerror}; give a file of one line of text") from error
