"""Parquet row groups and Arrow batches behind one face: numbered rows, read part by part. For `table`."""

import functools
import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from marginface.errors import InputError
from marginface.filenames import utf8_name
from marginface.optional_imports import load_library
from marginface.readers.base import USUAL_SIZE
from marginface.readers.containment import Bounds
from marginface.readers.image_walk import data_files
from marginface.readers.mapped import map_file
from marginface.readers.table_bounds import LARGEST_GROUP, MOST_GROUPS, check_messages, rows_at_once
from marginface.untrusted import free_memory, read_start

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
GROUPS_KEPT = 4


@dataclass(frozen=True)
class Part:
    """Some consecutive rows of a table; `load` gives the named columns as a pyarrow Table."""

    file: Path
    rows: int
    load: Callable[[list[str]], Any]


class Table:
    """All files of a table in a row. Safe to share between threads.

    Raises InputError if a file is damaged or no table, here and in the methods.
    """

    def __init__(self, path: Path, allow_outside: bool = False) -> None:
        self.path = path
        self.pyarrow = load_library("pyarrow", f"{path}: reading this format")
        files = table_files(path)
        if path.is_dir():
            Bounds(path, allow_outside=allow_outside).check_all(files)
        self.schema = self._try(files[0], _schema, self.pyarrow, files[0])
        self.names: list[str] = self._try(files[0], lambda: self.schema.names)
        self.parts: list[Part] = []
        for file in files:
            self.parts += self._try(file, _parts, self.pyarrow, file)
        self._turn = threading.Lock()  # pyarrow's Parquet files crash when two threads read from one
        self._starts = np.cumsum([0, *(part.rows for part in self.parts)])
        self._kept = functools.lru_cache(maxsize=GROUPS_KEPT)(self._load)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def column(self, name: str) -> np.ndarray:
        """A whole column, for short values such as labels; texts as objects."""
        columns, size = [np.empty(0, np.int64)][: not self.parts], 0
        for number in range(len(self.parts)):
            loaded = self._load(number, (name,))
            size += loaded.nbytes
            self._check_memory(size, self.parts[number].file)
            columns.append(loaded[name].to_numpy())
        return np.concatenate(columns)

    def rows(self, indices: Sequence[int], names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The named columns of some rows as Python values, in the order of `indices`."""
        places = np.searchsorted(self._starts, np.asarray(indices, dtype=np.int64), side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        size = 0
        for number in np.unique(places).tolist():
            columns = self._kept(number, names)
            here = np.flatnonzero(places == number).tolist()
            rows = [int(indices[place] - self._starts[number]) for place in here]
            cells = self._try(self.parts[number].file, _cells, columns, rows, names)
            size += sum(_size(cell) for row in cells for cell in row.values())
            self._check_memory(size, self.parts[number].file)
            found.update(zip(here, cells, strict=True))
        return [found[place] for place in range(len(indices))]

    def _check_memory(self, size: int, file: Path) -> None:
        """Raises InputError where cells take more than half of the free memory: a small file may repeat a large one."""
        if size > USUAL_SIZE and size > free_memory() // 2:
            raise InputError(f"{file}: the rows read with its rows take {size:,} bytes; take fewer at a time.")

    def where(self, index: int) -> str:
        """Names a row in messages."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self.parts[number].file}: row {index - int(self._starts[number])} of part {number}"

    def _load(self, number: int, names: tuple[str, ...]) -> Any:
        part = self.parts[number]
        with self._turn:
            columns = self._try(part.file, part.load, list(names))
        if columns.num_rows != part.rows:
            raise InputError(f"{part.file}: part {number} has {columns.num_rows} rows, not the {part.rows} promised.")
        for field in columns.schema:
            if not _is_plain(self.pyarrow.types, field.type):
                raise InputError(f"{part.file}: its column {field.name} is {field.type!s:.80}, which is not read.")
        return columns

    def _try(self, file: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except InputError:
            raise  # is a ValueError, and says already what is wrong
        except (self.pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise InputError(f"{file}: cannot be read as a table: {reason:.200}.") from error


def is_table(path: Path) -> bool:
    """Whether `path` is a Parquet or Arrow file, or a folder of them as `datasets` writes it."""
    return bool(table_files(path))


def table_files(path: Path) -> list[Path]:
    """The files of the table, of several splits those of the training set."""
    if path.is_file():
        return [path] if _format(path) else []
    files = [file for suffix in ("parquet", "arrow") for file in data_files(path, f"*.{suffix}", f"*/*.{suffix}")]
    files = [file for file in files if _format(file)]
    of_training = [file for file in files if "train" in (file.parent.name, file.name.partition("-")[0])]
    return of_training or files


def _format(file: Path) -> bytes | None:
    start = read_start(file, 6)
    return next((magic for magic in (PARQUET, ARROW_FILE, ARROW_STREAM) if start.startswith(magic)), None)


def _schema(pyarrow: Any, file: Path) -> Any:
    if _format(file) == PARQUET:
        return _parquet(file).schema_arrow
    return _arrow(pyarrow, file).schema


def _parts(pyarrow: Any, file: Path) -> list[Part]:
    if _format(file) != PARQUET:
        table = _arrow(pyarrow, file)
        _check_rows(file, table.num_rows)
        batches = [pyarrow.Table.from_batches([batch]) for batch in table.to_batches()]
        return [Part(file, batch.num_rows, batch.select) for batch in batches]
    parquet, data = _parquet(file), map_file(file)
    _check_rows(file, parquet.metadata.num_rows)
    if parquet.num_row_groups > MOST_GROUPS:
        raise ValueError(f"it claims {parquet.num_row_groups:,} row groups")
    return [_row_group(pyarrow, file, parquet, data, number) for number in range(parquet.num_row_groups)]


def _check_rows(file: Path, rows: int) -> None:
    if not 0 <= rows <= file.stat().st_size:  # each has an image
        raise ValueError(f"it claims {rows:,} rows in {file.stat().st_size:,} bytes")


def _row_group(pyarrow: Any, file: Path, parquet: Any, data: mmap.mmap, number: int) -> Part:
    about = parquet.metadata.row_group(number)
    if about.total_byte_size > LARGEST_GROUP:
        raise InputError(
            f"{file}: row group {number} has {about.total_byte_size:,} bytes, which would be read for every image;"
            f" write the file again with row groups of 100 to 1000 rows."
        )
    _check_rows(file, about.num_rows)

    def load(names: list[str]) -> Any:
        columns = [about.column(place) for place in range(about.num_columns)]
        chosen = [one for one in columns if any(f"{one.path_in_schema}.".startswith(f"{name}.") for name in names)]
        count = rows_at_once(data, chosen, about.num_rows)
        batches, size = [], 0
        for batch in parquet.iter_batches(count, row_groups=[number], columns=names, use_threads=False):
            batches.append(batch)
            size += batch.nbytes
            if size > LARGEST_GROUP:
                raise ValueError(f"row group {number} unpacks to more than {LARGEST_GROUP:,} bytes")
        return pyarrow.Table.from_batches(batches) if batches else parquet.read_row_group(number, columns=names)

    return Part(file, about.num_rows, load)


def _is_plain(types: Any, kind: Any) -> bool:
    """Whether cells are texts or bytes that lie behind one another, numbers, names by number, or structs of such."""
    if types.is_struct(kind):
        return all(_is_plain(types, kind.field(place).type) for place in range(kind.num_fields))
    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in (*texts, types.is_integer, types.is_boolean, types.is_floating))


def _cells(columns: Any, rows: list[int], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: columns[name][row].as_py() for name in names} for row in rows]


def _size(cell: Any) -> int:
    if isinstance(cell, dict):
        return sum(map(_size, cell.values()))
    return len(cell) if isinstance(cell, bytes | str) else 0


def _parquet(file: Path) -> Any:
    with utf8_name(file) as name:
        return load_library("pyarrow.parquet", f"{file}: reading this format").ParquetFile(name, memory_map=True)


def _arrow(pyarrow: Any, file: Path) -> Any:
    with utf8_name(file) as name:
        stream = pyarrow.memory_map(name).read_buffer()
    if _format(file) == ARROW_FILE:  # a stream between two marks and a footer, which is not believed
        stream = stream.slice(8)
    messages = pyarrow.ipc.MessageReader.open_stream(stream)
    check_messages(iter(messages))
    table = pyarrow.ipc.open_stream(stream).read_all()
    table.validate(full=True)  # offsets that point outside would crash the process
    return table
