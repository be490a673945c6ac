"""`marginface gallery`: enrol people from photographs, list, remove, erase, export."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marginface.commands.faces import add_eye, add_gallery, open_eye, open_gallery
from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite
from marginface.errors import InputError
from marginface.files import check_apart, check_folder
from marginface.gallery.models import open_model
from marginface.gallery.people import Gallery, enrol, valid_name
from marginface.gallery.photos import photos_in
from marginface.terminal import open_console, print_line, visible

ACTIONS = {
    "add": "FOLDER (a folder a person), or --name NAME IMAGE...",
    "list": "who is enrolled",
    "info": "how many, which model, where",
    "remove": "NAME...: no longer found",
    "erase": "NAME...: removed, and every trace of them in the store's files",
    "export": "FOLDER: everything that is stored, as JPEG, JSON and NumPy",
}

FLAGS = ("--help", "--allow-outside", "--overwrite")


def options(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=list(ACTIONS), help="; ".join(map(" ".join, ACTIONS.items())))
    parser.add_argument("words", type=str, nargs="*", help="what the action works on")
    parser.add_argument("--name", type=str, default="", help="of the person in the photographs to add")
    add_overwrite(parser)
    add_gallery(parser)
    add_eye(parser)
    add_allow_outside(parser)


def prepared(words: Sequence[str]) -> list[str]:
    """Photographs and names may stand behind options, each with a value but for FLAGS; argparse wants them together."""
    rest, plain, named = iter(words), [], []
    for word in rest:
        if not word.startswith("-"):
            plain.append(word)
            continue
        named.append(word)
        if word.startswith("--") and "=" not in word and word not in FLAGS:
            named += [value for value in (next(rest, None),) if value is not None]
    return [*plain, *named]


def run(options: Namespace, command: str) -> None:
    if options.words and options.action in ("list", "info"):
        raise InputError(f"gallery {options.action} takes no {options.words[0]!r:.100}; name the gallery by --gallery")
    action = {"add": _add, "list": _list, "info": _info, "remove": _remove, "erase": _remove, "export": _export}
    action[options.action](options)


def _add(options: Namespace) -> None:
    photos = list(_photos(options))
    for name in {name for name, _ in photos}:
        valid_name(name)  # before anything is opened
    eye = open_eye(options)
    counts, console = Counter[str](), Console(stderr=True)
    with open_gallery(options, eye.model, write=True, make=True) as gallery:
        with progress_bar("enrolling", "run it again: who is enrolled already stays") as show:
            enrolled = zip(photos, enrol(gallery, photos, eye), strict=True)
            for done, ((name, path), photo) in enumerate(enrolled, start=1):
                counts[photo.outcome] += 1
                line = f"left out: {photo.reason}" if photo.reason else ""
                if photo.others:
                    others = ", ".join(photo.others)
                    line = f"doubtful: {path} is enrolled as {name}, and the same photograph as {others}"
                if line:
                    print_line(line, console)
                show(done, len(photos))
        print_line(
            f"{len(photos)} photographs: {counts['added']} added, {counts['known']} already enrolled, "
            f"{counts['left out']} left out; {_summary(gallery)}"
        )


def _photos(options: Namespace) -> Iterator[tuple[str, Path]]:
    if not options.words:
        raise InputError("gallery add needs photographs: give FOLDER (a folder a person), or --name NAME IMAGE...")
    for word in options.words:
        for path in photos_in(word, options.allow_outside):
            if not options.name and path.parent == Path(word):
                raise InputError(f"{path} lies in no folder named after a person; give --name NAME")
            if not options.name and not Path(word).is_dir():
                raise InputError(f"whose face is {path}? give --name NAME")
            yield options.name or path.relative_to(word).parts[0], path


def _list(options: Namespace) -> None:
    table = Table("name", "faces")
    with open_gallery(options, open_model(options.model)) as gallery:
        for name, count in gallery.count().items():
            table.add_row(Text(visible(name)), str(count))
    open_console().print(table)


def _info(options: Namespace) -> None:
    with open_gallery(options, open_model(options.model)) as gallery:
        print_line(_summary(gallery))
        print_line(f"model {gallery.model.name}, fingerprint {gallery.model.fingerprint}")
        for far, threshold in sorted(gallery.model.thresholds.items()):
            print_line(f"FAR {far:g} a comparison: cosine {threshold:.4f} or more")


def _remove(options: Namespace) -> None:
    if not options.words:
        raise InputError(f"gallery {options.action} needs the names of people")
    with open_gallery(options, open_model(options.model), write=True) as gallery:
        for name in options.words:
            gallery.of(name)  # all of them or none
        count = (gallery.erase if options.action == "erase" else gallery.remove)(options.words)
        print_line(f"{count} faces of {len(set(options.words))} people gone; {_summary(gallery)}")


def _export(options: Namespace) -> None:
    if len(options.words) != 1:
        raise InputError("gallery export needs one folder to write to")
    check_folder(options.words[0], options.overwrite, [options.gallery])
    check_apart(options.words[0], options.gallery)
    with open_gallery(options, open_model(options.model)) as gallery:
        print_line(f"{gallery.export(options.words[0], options.overwrite)} faces in {options.words[0]}")


def _summary(gallery: Gallery) -> str:
    return f"{len(gallery.names)} people, {len(gallery)} faces in {gallery.store.address}"
