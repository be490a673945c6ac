"""The one walk through a folder of images. For every reader, benchmark and verb that takes one."""

import os
from collections.abc import Iterator

from marginface.errors import InputError
from marginface.readers.containment import Bounds

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm")


def images_of_people(folder: str | os.PathLike[str], bounds: Bounds) -> dict[str, list[str]]:
    """The images of each subfolder of `folder` that holds some, in the order of `walk_images`: paths below `folder`."""
    people: dict[str, list[str]] = {}
    for image in walk_images(folder, bounds):
        person, slash, _ = image.partition("/")
        if slash:
            people.setdefault(person, []).append(image)
    return people


def walk_images(folder: str | os.PathLike[str], bounds: Bounds) -> Iterator[str]:
    """Paths below `folder` of its images: those in a folder sorted, then those in its subfolders, sorted.

    Hidden files and folders are no images. Symbolic links are followed. Raises InputError for one that leads out of
    the bounds, and for a folder that is met a second time, so that links in a circle end and nobody counts twice.
    """
    root = os.fspath(folder)
    waiting = [("", os.path.realpath(root))]
    seen = {waiting[0][1]}
    while waiting:
        inside, real = waiting.pop()
        images, folders = [], []
        with os.scandir(f"{root}/{inside}") as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder, is_link = entry.is_dir(), entry.is_symlink()
                if not is_folder and not entry.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                if is_link:
                    bounds.check(f"{root}/{inside}{entry.name}")
                if is_folder:
                    folders.append((entry.name, is_link))
                elif entry.is_file() or (is_link and not os.path.exists(entry)):  # a broken link is named when read
                    images.append(entry.name)
        yield from (f"{inside}{name}" for name in sorted(images))
        for name, is_link in sorted(folders, reverse=True):
            place = os.path.realpath(f"{root}/{inside}{name}") if is_link else os.path.join(real, name)
            if place in seen:
                raise InputError(f"{root}/{inside}{name}: is {place}, which lies in the set already; remove the link.")
            seen.add(place)
            waiting.append((f"{inside}{name}/", place))
