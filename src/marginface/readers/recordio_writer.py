"""Writes InsightFace's RecordIO layout, byte for byte as its own tools do. Called by `convert`."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers.base import Record
from marginface.readers.image_size import image_size
from marginface.readers.names import CONTROLS, write_names
from marginface.readers.recordio_format import frame, pack
from marginface.readers.writer import Contents, encoded

MOST_CLASSES = 1 << 24  # labels are float32


class RecordIOWriter:
    """train.rec, train.idx, train.lst and property: images 1 ... n, then one record an identity, the header last.

    The records' own keys, which RecordIO cannot hold, are the paths of train.lst, the identities' names classes.txt.
    """

    def __init__(self, folder: Path, contents: Contents, state: dict[str, int]) -> None:
        if contents.num_classes > MOST_CLASSES:
            raise InputError(f"{folder}: RecordIO cannot number {contents.num_classes:,} identities exactly.")
        self._folder, self._contents = folder, contents
        self._done = state.get("done", 0)
        self._files = [(folder / name).open("ab") for name in ("train.rec", "train.idx", "train.lst")]
        for file, name in zip(self._files, ("rec", "idx", "lst"), strict=True):
            file.truncate(state.get(name, 0))  # what came after the last state is written again
            file.seek(0, os.SEEK_END)
        self._offset = self._files[0].tell()

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            self._done += 1
            image = encoded(record)
            if self._done == 1:
                self._write_property(image)
            self._append(self._done, pack([record.label], self._done, image))
            key = record.key.translate(CONTROLS)  # none of which may begin a line of its own
            self._files[2].write(f"1\t{key}\t{record.label}\n".encode("utf-8", "surrogateescape"))

    def state(self) -> dict[str, int]:
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        rec, idx, lst = (file.tell() for file in self._files)
        return {"done": self._done, "rec": rec, "idx": idx, "lst": lst}

    def finish(self) -> None:
        images = len(self._contents.labels)
        counts = np.bincount(self._contents.labels, minlength=self._contents.num_classes)
        ends = (1 + np.cumsum(counts)).tolist()
        key = images + 1
        for start, end in zip([1, *ends], ends, strict=False):
            self._append(key, pack([start, end], key, b""))
            key += 1
        self._append(0, pack([images + 1, key], 0, b"", id2=1))
        self.state()
        for file in self._files:
            file.close()
        if self._contents.class_names is not None:
            write_names(self._folder, self._contents.class_names)

    def _append(self, key: int, record: bytes) -> None:
        chunk = frame(record)
        self._files[0].write(chunk)
        self._files[1].write(b"%d\t%d\n" % (key, self._offset))
        self._offset += len(chunk)

    def _write_property(self, first: bytes) -> None:
        try:
            height, width = image_size(first)
        except ValueError:
            height, width = 112, 112  # damaged; nobody trusts these two numbers
        (self._folder / "property").write_text(f"{self._contents.num_classes},{height},{width}\n", encoding="ascii")
