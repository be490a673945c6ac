"""`marginface verify`: whether two photographs show one person."""

import json

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from marginface.commands.faces import add_eye, add_threshold, open_eye, threshold_of
from marginface.gallery.people import face_of
from marginface.gallery.photos import read_photo
from marginface.terminal import print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("first", type=str, help="a photograph")
    parser.add_argument("second", type=str, help="another one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_eye(parser)
    add_threshold(parser)


def run(options: Namespace, command: str) -> None:
    pictures = [read_photo(path) for path in (options.first, options.second)]
    eye = open_eye(options)
    threshold, origin = threshold_of(options, eye.model)
    first, second = (
        face_of("", picture, path, eye) for picture, path in zip(pictures, (options.first, options.second), strict=True)
    )
    similarity = float(np.dot(first.vector, second.vector))
    if options.json:
        print(json.dumps({"similarity": similarity, "threshold": threshold, "same": similarity >= threshold}))
        return
    answer = "the same person" if similarity >= threshold else "different people"
    print_line(f"{answer}: similarity {similarity:.4f}, threshold {threshold:.4f} ({origin})")
