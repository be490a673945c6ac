"""`marginface identify`: who is in a photograph, a folder, a video, or before the camera."""

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from marginface.commands.faces import add_eye, add_gallery, add_threshold, open_eye, open_gallery, threshold_of
from marginface.commands.numbers import Count, CountOrNone
from marginface.commands.shared import add_allow_outside, add_overwrite
from marginface.errors import InputError
from marginface.files import check_apart, check_file
from marginface.gallery.drawing import draw_faces, write_photo
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye, photos_in, read_photo
from marginface.terminal import print_line
from marginface.video.annotate import VIDEOS, identify_video


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", type=str, nargs="?", default="", help="a photograph, a folder of them, or a video (.mp4, ...)"
    )
    parser.add_argument("--camera", type=CountOrNone, default=None, help="number of a camera, instead of a source")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each photograph or frame")
    parser.add_argument("--save", type=str, default="", help="folder for annotated photographs, or file of a video")
    parser.add_argument("--every", type=Count, default=5, help="look for faces in every so many frames of a video")
    parser.add_argument(
        "--frames", type=CountOrNone, default=0, help="stop after so many frames; 0 is at the end, or at Ctrl-C"
    )
    add_overwrite(parser)
    add_gallery(parser)
    add_eye(parser)
    add_threshold(parser)
    add_allow_outside(parser)


def run(options: Namespace, command: str) -> None:
    if bool(options.source) == (options.camera is not None):
        raise InputError("identify needs a photograph, a folder or a video, or else --camera NUMBER")
    path = Path(options.source)
    if options.source and not path.exists():
        raise InputError(f"{path} does not exist; give a photograph, a folder or a video")
    eye = open_eye(options)
    threshold, _ = threshold_of(options, eye.model)
    with open_gallery(options, eye.model) as gallery:
        if options.camera is None and (path.is_dir() or path.suffix.lower() not in VIDEOS):
            _photographs(options, path, gallery, eye, threshold)
            return
        source = options.source if options.camera is None else options.camera
        for number, people in identify_video(
            source,
            gallery,
            eye,
            threshold,
            every=options.every,
            frames=options.frames,
            save=options.save,
            overwrite=options.overwrite,
        ):
            _print(options, f"frame {number}", [person.to_json() for person in people])


def _photographs(options: Namespace, path: Path, gallery: Gallery, eye: Eye, threshold: float) -> None:
    count = 0
    targets = _targets(options, path)
    for photo, target in targets.items():
        try:
            image = read_photo(photo)
        except InputError as error:
            if not path.is_dir():
                raise
            print_line(str(error), Console(stderr=True))
            continue
        count += 1
        seen = eye.see(image)
        matches = gallery.identify(seen.vectors, threshold)
        people = [
            {"name": m.name, "similarity": round(m.similarity, 4), "box": [round(float(x), 1) for x in box]}
            for m, box in zip(matches, seen.found.boxes, strict=True)
        ]
        _print(options, str(photo), people)
        if target:
            labels = [f"{m.name} {m.similarity:.2f}" for m in matches]
            write_photo(target, draw_faces(image, seen.found.boxes, labels), options.overwrite)
    if not count:
        raise InputError(f"none of the photographs in {path} can be read")


def _targets(options: Namespace, path: Path) -> dict[Path, Path | None]:
    """Photograph -> where its annotated copy goes. Raises InputError where one may not be written there."""
    photos = list(photos_in(path, options.allow_outside))
    if not options.save:
        return dict.fromkeys(photos)
    check_apart(options.save, path)
    targets: dict[Path, Path | None] = {}
    for photo in photos:
        target = Path(options.save) / (photo.relative_to(path) if path.is_dir() else photo.name)
        if target.suffix.lower() not in (".jpg", ".jpeg"):
            target = target.with_name(f"{target.name}.jpg")
        check_file(target, options.overwrite, [photo])
        targets[photo] = target
    return targets


def _print(options: Namespace, what: str, people: list[dict[str, Any]]) -> None:
    if options.json:
        print(json.dumps({"source": what, "faces": people}), flush=True)
    else:
        names = ", ".join(f"{person['name']} ({person['similarity']:.2f})" for person in people) or "nobody"
        print_line(f"{what}: {names}")
