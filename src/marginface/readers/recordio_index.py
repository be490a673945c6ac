"""Which key lies where in a RecordIO file: read from its `.idx`, or found by a scan. Called by `recordio`."""

import codecs
import mmap
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from marginface.errors import InputError
from marginface.readers import sidecar
from marginface.readers.recordio_format import HEADER, MAGIC_BYTES, read_record
from marginface.untrusted import LONGEST_LINE, open_file

BLOCK = 1 << 22  # bytes of the text parsed at a time


def load_index(rec: Path, data: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
    """(keys, byte offsets) of all records, in the order of the `.idx` file.

    Without one beside `rec` the records are found by a scan, and the index saved for the next time.
    Keys are uint32 if they fit, offsets int64: 12 bytes a record.

    Raises InputError if the index is not one, or does not belong to this file.
    """
    beside = rec.with_suffix(".idx")
    index = beside if beside.is_file() else sidecar.find(rec, ".idx")
    if index is not None:
        keys, offsets = parse_index(index, len(data))
        _check_offsets(index, data, offsets)
        return keys, offsets
    keys, offsets = scan(rec, data)
    sidecar.save(rec, ".idx", lambda path: write_index(path, keys, offsets))
    return keys, offsets


def parse_index(index: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parses lines `key<TAB>offset`; `size` is the length of the RecordIO file in bytes."""
    count = sum(block.count(b"\n") for block in _line_blocks(index))
    keys: np.ndarray = np.empty(count, dtype=np.uint32)
    offsets = np.empty(count, dtype=np.int64)
    row = 0
    for block in _line_blocks(index):
        numbers = _numbers(index, row, block)
        some_keys, some_offsets = numbers[:, 0], numbers[:, 1]
        wrong = (some_offsets & 3 != 0) | (some_offsets > size - HEADER.size - 8)
        if wrong.any():
            at = int(wrong.argmax())
            raise InputError(
                f"{index}: line {row + at + 1} puts a record at byte {some_offsets[at]}, where none can be in"
                f" a file of {size} bytes; delete the index and it will be rebuilt."
            )
        if keys.dtype == np.uint32 and some_keys.max() > np.iinfo(np.uint32).max:
            keys = keys.astype(np.int64)
        keys[row : row + len(numbers)] = some_keys
        offsets[row : row + len(numbers)] = some_offsets
        row += len(numbers)
    if count == 0:
        raise InputError(f"{index}: the index is empty; delete it and it will be rebuilt.")
    return keys, offsets


def _line_blocks(index: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines, each ending with a newline."""
    with open_file(index) as file:
        while block := file.read(BLOCK):
            block = block.removeprefix(codecs.BOM_UTF8) + file.readline(LONGEST_LINE)
            yield block if block.endswith(b"\n") else block + b"\n"


def _numbers(index: Path, row: int, block: bytes) -> np.ndarray:
    """The two columns of a block, int64 (lines, 2)."""
    lines = block.count(b"\n")
    if not block.translate(None, b"0123456789\t\n\r "):
        numbers = np.fromstring(block.decode("ascii"), dtype=np.int64, sep=" ")
        if len(numbers) == 2 * lines:
            return numbers.reshape(lines, 2)
    wrong = next((i for i, line in enumerate(block.split(b"\n")) if not _is_pair(line)), 0)
    raise InputError(f"{index}: line {row + wrong + 1} is not a key and a byte offset; delete the index to rebuild it.")


def _is_pair(line: bytes) -> bool:
    fields = line.split()
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _check_offsets(index: Path, data: mmap.mmap, offsets: np.ndarray) -> None:
    """Looks at some of the records: an index left over from another file is found out at once."""
    sample = offsets[np.unique(np.linspace(0, len(offsets) - 1, 64).astype(np.int64))].tolist()
    wrong = [start for start in sample if data[start : start + 4] != MAGIC_BYTES]
    if len(wrong) > len(sample) // 4:  # fewer may be damage to the file itself
        raise InputError(
            f"{index}: no records start at byte {wrong[0]} and others where they should; the index belongs to"
            f" another file; delete it and it will be rebuilt."
        )


def write_index(index: Path, keys: np.ndarray, offsets: np.ndarray) -> None:
    """Writes the lines that `parse_index` reads."""
    with index.open("w", encoding="ascii") as file:
        for start in range(0, len(keys), 100_000):
            part = slice(start, start + 100_000)
            pairs = zip(keys[part].tolist(), offsets[part].tolist(), strict=True)
            file.writelines(f"{key}\t{offset}\n" for key, offset in pairs)


def scan(rec: Path, data: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
    """As `load_index`, from the records themselves: keys are their ids, or their places if ids repeat."""
    offsets, identifiers = array("q"), array("Q")
    offset = 0
    while offset < len(data):
        try:
            record, following = read_record(data, offset)
            (identifier,) = struct.unpack_from("<Q", record, 8)
        except (ValueError, struct.error) as error:
            raise InputError(f"{rec}: record {len(offsets)} is damaged or cut short: {error}.") from error
        offsets.append(offset)
        identifiers.append(identifier)
        offset = following
    keys = np.array(identifiers, dtype=np.uint64)
    if len(np.unique(keys)) < len(keys) or (len(keys) and keys.max() > np.iinfo(np.int64).max):
        keys = np.arange(len(keys), dtype=np.uint64)
    narrow = np.uint32 if len(keys) and keys.max() <= np.iinfo(np.uint32).max else np.int64
    return keys.astype(narrow), np.array(offsets, dtype=np.int64)
