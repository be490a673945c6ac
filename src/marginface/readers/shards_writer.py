"""Writes WebDataset shards. Called by `convert`."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from marginface.readers.base import Record
from marginface.readers.writer import Contents, encoded, suffix_of

RECORDS_A_SHARD = 10_000


class ShardsWriter:
    """train-000000.tar, ... with 000000000.jpg, .cls and .json (key, identity, number of classes) for each record."""

    def __init__(self, folder: Path, contents: Contents, state: dict[str, int]) -> None:
        self._folder, self._contents = folder, contents
        self._durable = self._next = state.get("done", 0)
        self._tar: tarfile.TarFile | None = None

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            if self._tar is None:
                path = self._folder / f"train-{self._next // RECORDS_A_SHARD:06d}.tar"
                self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed with its shard
            image = encoded(record)
            about: dict[str, object] = {"key": record.key, "num_classes": self._contents.num_classes}
            if self._contents.class_names is not None:
                about["identity"] = self._contents.identity(record.label)
            self._add(suffix_of(image), image)
            self._add(".cls", str(record.label).encode())
            self._add(".json", json.dumps(about).encode())
            self._next += 1
            if self._next % RECORDS_A_SHARD == 0:
                self._close()

    def state(self) -> dict[str, int]:
        return {"done": self._durable}

    def finish(self) -> None:
        self._close()

    def _add(self, suffix: str, content: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(f"{self._next:09d}{suffix}")
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        self._tar, self._durable = None, self._next
