"""Words that the verbs about people share, and what they open. Not a verb."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.numbers import Cosine, Rate
from marginface.detection import UNDERSTOOD, open_detector
from marginface.errors import InputError
from marginface.gallery.models import FaceModel, open_model
from marginface.gallery.people import Gallery
from marginface.gallery.photos import Eye
from marginface.gallery.store import Store


def add_eye(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=str, default="dlib", help="folder of a model or of a run, or dlib")
    parser.add_argument("--detector", type=str, default="", help=UNDERSTOOD)


def add_gallery(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--gallery", type=str, default="gallery.db", help="a file that ends in .db, or a server as http://HOST:PORT"
    )


def add_threshold(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--far", type=Rate, default=1e-3, help="share of comparisons of different people that may be accepted"
    )
    parser.add_argument("--threshold", type=Cosine, default=None, help="lowest accepted cosine, instead of --far")


def open_eye(options: Namespace) -> Eye:
    return Eye(open_detector(options.detector), open_model(options.model))


@contextmanager
def open_gallery(options: Namespace, model: FaceModel, write: bool = False, make: bool = False) -> Iterator[Gallery]:
    """write: it may be changed. make: where there is none; otherwise InputError, as for a mistyped address."""
    if not make and "://" not in options.gallery and not Path(options.gallery).exists():
        raise InputError(f"{options.gallery} does not exist; `marginface gallery add` makes it")
    with closing(Store(options.gallery, write=write)) as store:
        yield Gallery(store, model)


def threshold_of(options: Namespace, model: FaceModel) -> tuple[float, str]:
    """The lowest accepted cosine, and where it is from in words."""
    if options.threshold is not None:
        return options.threshold, "given"
    return model.threshold(options.far), f"FAR {options.far:g} a comparison"
