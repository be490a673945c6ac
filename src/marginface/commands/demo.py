"""`marginface demo`: a local web page that recognises people."""

import threading

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.commands.faces import add_eye, add_gallery, add_threshold, open_eye, open_gallery, threshold_of
from marginface.demo.desk import Desk
from marginface.demo.page import serve_page


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 shows the page to the whole network")
    parser.add_argument("--port", type=int, default=None, help="by default a free one from 7860 on")
    add_gallery(parser)
    add_eye(parser)
    add_threshold(parser)


def run(options: Namespace, command: str) -> None:
    eye = open_eye(options)
    threshold, _ = threshold_of(options, eye.model)
    with (
        open_gallery(options, eye.model, write=True, make=True) as gallery,
        serve_page(Desk(gallery, eye), threshold, eye.model.thresholds, options.host, options.port) as address,
    ):
        Console().print(f"{address} — Ctrl-C ends it", highlight=False)
        threading.Event().wait()
