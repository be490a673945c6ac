"""Where the files lie inside zip and tar archives, so that each can be read without the others. For `archive`."""

import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from marginface.errors import InputError
from marginface.untrusted import LARGEST_IMAGE, open_file, read_start

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
BLOCK = 512  # a tar archive is made of these
LONGEST_NAME = 1 << 16
FREE_GROWTH, GROWTH = 1 << 20, 20
"""An image may unpack to so many bytes, and more only by this factor: most are compressed already."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its bytes start at `offset`, or for zip its local header does."""

    name: str
    offset: int
    size: int
    packed_size: int = 0
    method: int = STORED
    checksum: int = 0


def is_zip(path: Path) -> bool:
    """Whether the file starts as a zip archive does."""
    return read_start(path, 4) in (b"PK\x03\x04", b"PK\x05\x06")


def is_tar(path: Path) -> bool:
    """Whether the file starts as a tar archive does."""
    return read_start(path, 265)[257:262] == b"ustar"


def zip_members(path: Path) -> Iterator[Member]:
    """The files in the directory of a zip archive."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if sum(entry.compress_size for entry in entries) > file.seek(0, os.SEEK_END):
                raise InputError(f"{path}: the files in the archive overlap; pack it again.")
            for entry in entries:
                if entry.filename.endswith("/"):
                    continue
                if entry.flag_bits & 1:
                    raise InputError(f"{path}: {entry.filename!r:.200} is encrypted; unpack the archive first.")
                if entry.compress_type not in (STORED, DEFLATED):
                    raise InputError(
                        f"{path}: {entry.filename!r:.200} is packed by a method that is not read; unpack it first."
                    )
                sizes = entry.file_size, entry.compress_size
                yield Member(entry.filename, entry.header_offset, *sizes, entry.compress_type, entry.CRC)
    except InputError:
        raise
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: the directory of the zip archive is damaged: {error}.") from error


def zip_content(data: mmap.mmap, member: Member) -> bytes:
    """The bytes of a file in a zip archive. Raises ValueError if they are damaged or not what the directory says."""
    start = zip_start(data, member)
    content = data[start : start + member.packed_size]
    if member.method == DEFLATED:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacker.decompress(content, member.size + 1)
        except zlib.error as error:
            raise ValueError(f"it does not unpack: {error}") from error
    if len(content) != member.size or zlib.crc32(content) != member.checksum:
        raise ValueError("its checksum is wrong")
    return content


def check_image(member: Member) -> None:
    """Raises ValueError for a member that is too large for an image, or shrinks as no image does."""
    grows = member.method == DEFLATED and member.size > FREE_GROWTH + GROWTH * member.packed_size
    if member.size > LARGEST_IMAGE or grows:
        raise ValueError(f"it claims {member.size:,} bytes, packed into {member.packed_size:,}")


def zip_start(data: mmap.mmap, member: Member) -> int:
    """Where the packed bytes of a file in a zip archive start. Raises ValueError where there is no such file."""
    if data[member.offset : member.offset + 4] != b"PK\x03\x04":
        raise ValueError("no file starts there")
    name, extra = struct.unpack_from("<HH", data, member.offset + 26)
    start = int(member.offset + 30 + name + extra)
    if start + member.packed_size > len(data):
        raise ValueError(f"it claims {member.packed_size:,} bytes")
    return start


def tar_members(path: Path, data: mmap.mmap) -> Iterator[Member]:
    """The files of a tar archive that is not compressed: POSIX, GNU and pax; links and devices are passed over."""
    offset, long_name, records = 0, b"", dict[bytes, bytes]()
    while offset + BLOCK <= len(data):
        header = data[offset : offset + BLOCK]
        if header.count(0) == BLOCK:
            return
        try:
            name, kind, size = _tar_header(header)
            size = int(records.get(b"size", size))
            start = offset + BLOCK
            if not 0 <= size <= len(data) - start:
                raise ValueError(f"a file claims {size:,} bytes where {len(data) - start:,} are left")
            if kind in (b"L", b"x", b"g") and size > LONGEST_NAME:
                raise ValueError(f"a name of {size:,} bytes")
            if kind == b"L":
                long_name = data[start : start + size].rstrip(b"\0")
            elif kind == b"x":
                records = _pax_records(data[start : start + size])
            elif kind not in (b"K", b"g"):
                if kind in (b"0", b"\0", b"7"):
                    full = records.get(b"path") or long_name or name
                    yield Member(full.decode("utf-8", "surrogateescape"), start, size)
                long_name, records = b"", {}
        except ValueError as error:
            raise InputError(f"{path}: the tar archive is damaged at byte {offset}: {error}.") from error
        offset = start + -(-size // BLOCK) * BLOCK


def _tar_header(header: bytes) -> tuple[bytes, bytes, int]:
    """(name, kind, size) of a header block. Raises ValueError if its checksum is wrong."""
    claimed = _tar_number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 32 != claimed:
        raise ValueError("no file starts there")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return name, header[156:157], _tar_number(header[124:136])


def _tar_number(field: bytes) -> int:
    """Octal digits, or GNU's big-endian bytes for what does not fit."""
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big", signed=field[:1] == b"\xff")
    return int(field.strip(b" \0") or b"0", 8)


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Lines `length key=value`, where the length counts itself."""
    records = {}
    while content:
        length = int(content[:20].split(b" ")[0])
        if not 4 < length <= len(content):
            raise ValueError("an extended header is damaged")
        key, _, value = content[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        records[key] = value
        content = content[length:]
    return records
