"""What Parquet and Arrow files unpack to, found out from the headers of their pages and batches. For `table_parts`.

Arrow believes the footer of a file, which says nothing of single pages: a page of a few bytes may claim two gigabytes,
and a dictionary of one image may stand for a million rows. Formats: parquet.thrift of Apache Parquet, Thrift's compact
protocol, Message.fbs of Apache Arrow.
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Any

LARGEST_GROUP = 1 << 28
"""Bytes of a row group, all of which is read for any image in it."""
MOST_GROUPS = 100_000
MOST_ROWS_AT_ONCE = 1 << 16
KINDS = ("BYTE_ARRAY", "BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")
"""Those whose values take no more room than their bytes; a gap in FIXED_LEN_BYTE_ARRAY takes its length."""
UNCOMPRESSED_SIZE, COMPRESSED_SIZE = 2, 3  # fields of a page's header
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 5, 7, 8
ENCODING = {DATA_PAGE: 2, DATA_PAGE_V2: 4}  # in the part of the header that is special to its kind
DELTA_BYTE_ARRAY = 7  # each value may be one before and no more
DEEPEST = 8  # parts of a page's header in each other


def rows_at_once(data: mmap.mmap, columns: list[Any], rows: int) -> int:
    """How many rows of a row group may be read at a time, so that no encoding takes much more than LARGEST_GROUP.

    columns: pyarrow's metadata of the column chunks that are read. Raises ValueError for chunks that claim more than
    that, or another number of values than rows, and for damaged pages.
    """
    largest, total = 1, 0
    for column in columns if rows else ():
        if column.num_values != rows or column.physical_type not in KINDS:
            raise ValueError(f"{column.path_in_schema} has {column.num_values:,} values of {column.physical_type}")
        try:
            headers = list(_pages(data, column))
        except IndexError as error:
            raise ValueError("a page's header is cut short") from error
        for header in headers:
            size = header[UNCOMPRESSED_SIZE]
            total += size
            parts = ((header.get(kind), field) for kind, field in ENCODING.items())
            delta = any(isinstance(part, dict) and part.get(field) == DELTA_BYTE_ARRAY for part, field in parts)
            if DICTIONARY_PAGE in header or delta:
                largest = max(largest, size)
    if total > LARGEST_GROUP:
        raise ValueError(f"its pages claim {total:,} bytes")
    return min(max(LARGEST_GROUP // 4 // largest, 1), MOST_ROWS_AT_ONCE)  # Arrow takes room for twice as many


def _pages(data: mmap.mmap, column: Any) -> Iterator[dict[int, Any]]:
    """The headers of the pages of a column chunk."""
    at = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end = at + column.total_compressed_size
    if not 0 < at <= end <= len(data):
        raise ValueError("a column lies outside of the file")
    while at < end:
        header, at = _struct(data, at, 0)
        sizes = header.get(UNCOMPRESSED_SIZE), header.get(COMPRESSED_SIZE)
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("a page without a size")
        at += header[COMPRESSED_SIZE]
        yield header


def _struct(data: mmap.mmap, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """(field -> value, the byte behind it): numbers and the structs in it, other values left out."""
    if depth > DEEPEST:
        raise ValueError("a page's header is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        number, at = (number + (data[at] >> 4), at + 1) if data[at] >> 4 else _number(data, at + 1)
        value: Any = None
        if kind in (3, 7):  # a byte, or a fraction
            at += 1 if kind == 3 else 8
        elif kind in (4, 5, 6):
            value, at = _number(data, at)
        elif kind == 8:  # text
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            value, at = _struct(data, at, depth + 1)
        elif kind not in (1, 2):  # true and false
            raise ValueError("a page's header holds what none has")
        fields[number] = value
    return fields, at + 1


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a page's header is damaged")


def check_messages(messages: Iterator[Any]) -> None:
    """Raises ValueError for compressed batches of an Arrow stream, whose size is known only once they are unpacked."""
    for message in messages:
        try:
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("its batches are compressed; write it again without compression")
        except struct.error as error:
            raise ValueError("a message is damaged") from error


def _is_compressed(message: bytes) -> bool:
    root = struct.unpack_from("<I", message)[0]
    kind = _field(message, root, 1)
    batch = _table(message, root, 2)
    if kind is None or batch is None:
        return False
    if message[kind] == 2:  # a dictionary, around a batch
        batch = _table(message, batch, 1)
    return message[kind] in (2, 3) and batch is not None and _field(message, batch, 3) is not None


def _field(message: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table lies; None where it is left out."""
    entries = table - struct.unpack_from("<i", message, table)[0]
    if entries < 0 or 4 + 2 * number >= struct.unpack_from("<H", message, entries)[0]:
        return None
    offset = struct.unpack_from("<H", message, entries + 4 + 2 * number)[0]
    return table + offset if offset else None


def _table(message: bytes, table: int, number: int) -> int | None:
    at = _field(message, table, number)
    return None if at is None else int(at + struct.unpack_from("<I", message, at)[0])
