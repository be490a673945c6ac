"""One pass over a set: what each image is, without keeping any. Called by `inspect`."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from marginface.errors import InputError
from marginface.loading.decode import decode
from marginface.readers.base import Record
from marginface.readers.names import PackedNames

TOGETHER = 256
HASH_SIDE = 16  # a perceptual hash has 16 × 16 bits
GREY_SPREAD = 3  # levels that the channels of a grey image differ by at most, on average

Read = Callable[[Sequence[int]], Sequence[Record]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Survey:
    """A row for every image of a set. Rows of `unreadable` images are zero.

    sizes: int32 (N, 2), height and width. grey: bool (N,). exact: uint64 (N,), a hash of the bytes; equal bytes
    have equal hashes. looks: uint64 (N, 4), a perceptual hash; alike pictures differ in few bits.
    unreadable: {row: reason}.
    """

    keys: Sequence[str]
    sizes: np.ndarray
    grey: np.ndarray
    exact: np.ndarray
    looks: np.ndarray
    unreadable: dict[int, str]

    def __len__(self) -> int:
        return len(self.exact)

    @property
    def readable(self) -> np.ndarray:
        """bool (N,)"""
        readable = np.ones(len(self), dtype=bool)
        readable[list(self.unreadable)] = False
        return readable


def survey(read: Read, count: int, workers: int = 2, progress: Progress = lambda done, total: None) -> Survey:
    """Looks at records 0 ... count - 1, which `read` gives by their numbers."""
    sizes = np.zeros((count, 2), dtype=np.int32)
    grey, exact = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.uint64)
    looks = np.zeros((count, HASH_SIDE * HASH_SIDE // 64), dtype=np.uint64)
    unreadable: dict[int, str] = {}

    def look(start: int) -> list[str]:
        rows = range(start, min(start + TOGETHER, count))
        keys = []
        for row, record in zip(rows, _read_or_blame(read, rows), strict=True):
            keys.append(record.key if isinstance(record, Record) else f"record {row}")
            try:
                if isinstance(record, InputError):
                    raise record
                picture = decode(record)
            except InputError as error:
                unreadable[row] = str(error)
                continue
            sizes[row] = picture.shape[:2]
            grey[row] = is_grey(picture)
            exact[row] = exact_hash(record.image)
            looks[row] = perceptual_hash(picture)
        return keys

    def all_keys() -> Iterator[str]:
        with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
            for number, keys in enumerate(pool.map(look, range(0, count, TOGETHER))):
                progress(min((number + 1) * TOGETHER, count), count)
                yield from keys

    keys = PackedNames(all_keys())
    return Survey(keys, sizes, grey, exact, looks, dict(sorted(unreadable.items())))


def _read_or_blame(read: Read, rows: range) -> Sequence[Record | InputError]:
    """The records; if one of them cannot be read, the others all the same."""
    try:
        return read(rows)
    except InputError:
        return [_read_one(read, row) for row in rows]


def _read_one(read: Read, row: int) -> Record | InputError:
    try:
        return read([row])[0]
    except InputError as error:
        return error


def is_grey(picture: np.ndarray) -> bool:
    """Whether the channels of RGB uint8 (H, W, 3) are equal but for what compression does."""
    small = picture[::4, ::4].astype(np.int16)
    return bool((small.max(axis=2) - small.min(axis=2)).mean() <= GREY_SPREAD)


def exact_hash(image: bytes | np.ndarray) -> int:
    """64 bits: two among a billion different images agree by chance once in 40 sets."""
    content = image if isinstance(image, bytes) else np.ascontiguousarray(image).data
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """256 bits, uint64 (4,): which of the low frequencies of RGB uint8 (H, W, 3) lie above their median.

    The discrete cosine transform of the grey picture at 64 × 64 (C. Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010), with 16 × 16 instead of 8 × 8 frequencies, since aligned faces are
    more alike than other pictures.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[1 : HASH_SIDE + 1, 1 : HASH_SIDE + 1].ravel()
    return np.packbits(low > np.median(low)).view(np.uint64)
