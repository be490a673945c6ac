"""MXNet RecordIO sets (`train.rec`, `.idx`, `property`) without mxnet, mapped. Opened by `open_reader`."""

import codecs
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from marginface.errors import InputError
from marginface.readers import sidecar
from marginface.readers.base import MOST_CLASSES, Record, read_each
from marginface.readers.containment import Bounds
from marginface.readers.mapped import map_file
from marginface.readers.names import CLASSES, read_names
from marginface.readers.recordio_format import (
    CHUNK,
    FIRST,
    HEADER,
    LONGEST,
    MAGIC,
    read_image,
    read_record,
    unpack_range,
)
from marginface.readers.recordio_index import load_index
from marginface.untrusted import read_start

EXACT = 1 << 24  # float32, in which InsightFace stores keys and labels, is exact up to here
DAMAGED = -1  # instead of a label
BLOCK = 65536  # records looked at together
EMPTY = CHUNK.size + HEADER.size + 8  # bytes of a chunk that holds two labels and no image


class RecordIOReader:
    """Reads the sets of InsightFace, im2rec and CVLface; a key is the RecordIO key of the record.

    Ranges without an image, as InsightFace's header and identity records are, may stand anywhere; all other records
    are images, in the order of their keys if record 0 is such a header, else in that of the index. Of several labels
    the first is taken.

    Making one touches the index only: `labels` come from the identity records where these agree with the images,
    and else from one pass over the file, which is saved beside it.

    Raises InputError if the file is no RecordIO file, or its index or property file does not belong to it.
    """

    def __init__(self, path: str | os.PathLike[str], allow_outside: bool = False) -> None:
        self.path = Path(path)
        bounds = Bounds(self.path, allow_outside=allow_outside)
        for companion in (self.path.with_suffix(".idx"), *map(self.path.with_name, ("property", CLASSES))):
            bounds.check(companion)
        self._data = map_file(self.path)
        keys, offsets = load_index(self.path, self._data)
        empty = self._without_image(offsets)
        images = _others(len(offsets), empty)
        self._keys, self._offsets = _compact(keys[images]), offsets[images]
        self._identities = offsets[:0]
        if len(header := empty[keys[empty] == 0]):
            self._check_header(int(offsets[header[0]]))
            if isinstance(self._keys, np.ndarray):
                order = np.argsort(self._keys, kind="stable")
                self._keys, self._offsets = _compact(self._keys[order]), self._offsets[order]
            identities = empty[keys[empty] != 0]
            self._identities = offsets[identities[np.argsort(keys[identities], kind="stable")]]
        if len(self._offsets) == 0:
            raise InputError(f"{self.path}: holds no images.")
        self.property_classes = self._property()  # which is wrong in some sets; identity records are not
        self.declared_classes = len(self._identities) or self.property_classes

    def __len__(self) -> int:
        return len(self._offsets)

    @functools.cached_property
    def num_classes(self) -> int:
        return max(self.declared_classes or 0, int(self.labels.max()) + 1)

    @functools.cached_property
    def class_names(self) -> Sequence[str] | None:
        """The names that `marginface convert` wrote beside the set; None where there are none."""
        return read_names(self.path.parent, self.num_classes)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        sample = np.unique(np.linspace(0, len(self) - 1, 1000).astype(np.int64))
        stated = self._stored_labels(sample)
        for known in (self._labels_of_identities(), sidecar.load_labels(self.path, len(self))):
            if known is not None and ((known[sample] == stated) | (stated == DAMAGED)).all():
                return known
        rows = np.arange(len(self))
        labels = np.concatenate([self._stored_labels(rows[i : i + BLOCK]) for i in range(0, len(self), BLOCK)])
        if (labels == DAMAGED).any():
            self._read_one(int(np.argmax(labels == DAMAGED)))  # which says why
        sidecar.save_labels(self.path, labels)
        return labels

    def read(self, indices: Sequence[int]) -> list[Record]:
        return read_each(indices, self._read_one)

    def _read_one(self, index: int) -> Record:
        try:
            label, image = read_image(self._data, int(self._offsets[index]))
        except ValueError as error:
            self._refuse(index, str(error))
        if not (0 <= label < EXACT and label == int(label)):
            self._refuse(index, f"its label {label:.10g} is no whole number below {EXACT:,}, which float32 tells apart")
        return Record(image, int(label), str(self._keys[index]))

    def _refuse(self, index: int, reason: str) -> NoReturn:
        place = f"record {index} (key {self._keys[index]}, byte {self._offsets[index]})"
        raise InputError(f"{self.path}: {place} is damaged: {reason}.")

    def _without_image(self, offsets: np.ndarray) -> np.ndarray:
        """Rows of the index that are InsightFace's header and identity records, wherever they stand, ascending."""
        starts = range(0, len(offsets), BLOCK)
        ascending = all((np.diff(offsets[start : start + BLOCK + 1]) > 0).all() for start in starts)
        order = None if ascending else np.argsort(offsets, kind="stable")
        rows: list[np.ndarray] = []
        for start in starts:  # piece by piece, since lengths of millions at once take memory
            part = slice(start, start + BLOCK + 1)
            piece = offsets[part] if order is None else offsets[order[part]]
            lengths = np.diff(piece, append=[len(self._data)] if start + BLOCK >= len(offsets) else [])
            rows.append(start + np.flatnonzero(lengths == EMPTY))
        found = np.concatenate(rows)
        found = found if order is None else np.sort(order[found])
        words = self._words(offsets[found], 3)
        empty: np.ndarray = found[(words[:, 0] == MAGIC) & (words[:, 1] == EMPTY - CHUNK.size) & (words[:, 2] == 2)]
        return empty

    def _check_header(self, offset: int) -> None:
        """Raises InputError if the header, record 0, promises more images than the index has."""
        found = unpack_range(read_record(self._data, offset)[0])
        if found is None or not 1 <= found[0] <= found[1] <= 1 << 40:
            raise InputError(f"{self.path}: the header, record 0, names impossible key ranges {found}.")
        if found[1] <= EXACT and found[0] > len(self) + 1:
            raise InputError(
                f"{self.path.with_suffix('.idx')}: record 0 promises the keys 1 to {found[0] - 1:.0f}, but the"
                f" index has {len(self)} images; delete it and it will be rebuilt."
            )

    def _property(self) -> int | None:
        """The number of classes in the file `property`, if there is one."""
        file = self.path.with_name("property")
        if not file.is_file():
            return None
        text = read_start(file, 100).removeprefix(codecs.BOM_UTF8).split(b",")[0].strip()
        if not text.isdigit() or not 0 < int(text) <= MOST_CLASSES:
            raise InputError(f"{file}: should start with the number of classes, as in 10572,112,112.")
        return int(text)

    def _labels_of_identities(self) -> np.ndarray | None:
        """Labels from the ranges of keys in the identity records, if these divide the images among them."""
        if len(self._identities) == 0 or len(self) >= EXACT:
            return None
        ranges = self._words(self._identities, EMPTY // 4)
        if (ranges[:, 0] != MAGIC).any() or (ranges[:, 2] != 2).any():
            return None
        starts, ends = ranges[:, 8:10].view("<f4").astype(np.float64).T
        if starts[0] != 1 or ends[-1] != len(self) + 1 or (starts[1:] != ends[:-1]).any() or (ends < starts).any():
            return None
        return np.repeat(np.arange(len(starts), dtype=np.int64), (ends - starts).astype(np.int64))

    def _stored_labels(self, rows: np.ndarray) -> np.ndarray:
        """The class that each record itself states, or DAMAGED, int64 (len(rows),)."""
        words = self._words(self._offsets[rows], 9)
        stated = np.where(words[:, 2] == 0, words[:, 3], words[:, 8]).astype("<u4").view("<f4").astype(np.float64)
        short = (words[:, 1] >> 29 == FIRST) & (words[:, 1] & LONGEST < HEADER.size + 4)
        odd = (words[:, 0] != MAGIC) | short | ~((stated >= 0) & (stated < EXACT) & (stated == np.trunc(stated)))
        size = 0
        for at in np.flatnonzero(odd):
            try:
                record = self._read_one(rows[at])  # slow and exact
            except InputError:
                stated[at] = DAMAGED
                continue
            stated[at] = record.label
            size += len(record.image)
            if size > len(self._data):
                self._refuse(rows[at], "its image is that of other records too")
        return stated.astype(np.int64)

    def _words(self, offsets: np.ndarray, count: int) -> np.ndarray:
        """`count` words from each byte offset, uint32 (len(offsets), count); beyond the end the last word."""
        file = np.frombuffer(self._data, dtype="<u4", count=len(self._data) // 4)
        places = offsets[:, None] // 4 + np.arange(count)
        return file[np.minimum(places, len(file) - 1)]


def is_recordio(path: Path) -> bool:
    """Whether the file starts as RecordIO does."""
    return read_start(path, 4) == MAGIC.to_bytes(4, "little")


def _others(count: int, rows: np.ndarray) -> slice | np.ndarray:
    """All of 0 ... count - 1 but `rows`, ascending; if in a row a slice, which costs no memory."""
    edges = np.concatenate([[-1], rows, [count]])
    gaps = np.flatnonzero(np.diff(edges) > 1)
    if len(gaps) <= 1:
        return slice(int(edges[gaps[0]]) + 1, int(edges[gaps[0] + 1])) if len(gaps) else slice(0)
    kept = np.ones(count, dtype=bool)
    kept[rows] = False
    return np.flatnonzero(kept)


def _compact(keys: np.ndarray) -> range | np.ndarray:
    """Consecutive keys as a range, others as the array."""
    first = int(keys[0]) if len(keys) else 0
    return range(first, first + len(keys)) if _is_range(keys, first) else keys


def _is_range(keys: np.ndarray, first: int) -> bool:
    """Whether keys are first, first + 1, ...; piece by piece, since comparing millions at once takes memory."""
    for start in range(0, len(keys), BLOCK):
        piece = keys[start : start + BLOCK]
        if not np.array_equal(piece, np.arange(first + start, first + start + len(piece))):
            return False
    return True
