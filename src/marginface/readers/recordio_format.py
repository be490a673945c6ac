"""RecordIO on the byte level, as MXNet writes it: frames and image headers. Used by its reader and writer.

A file is a chain of chunks: uint32 magic, uint32 kind << 29 | length, the bytes, zeros up to a multiple of 4.
Kind 0 is a whole record; wherever a record holds the magic at a multiple of 4, those 4 bytes are left out and
the record goes on in another chunk: kind 1 is the first, 2 a middle and 3 the last part. A record of a face
set starts with the header flag, label, id, id2; flag > 0 says how many float labels follow instead of one.
"""

import mmap
import struct
from collections.abc import Sequence

from marginface.untrusted import LARGEST_IMAGE

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LONGEST = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
MOST_PARTS = 10_000  # of a record; the magic number in it, which parts them, is there by chance
CHUNK = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
PLAIN = struct.Struct("<IIIf")


def read_record(data: bytes | mmap.mmap, offset: int) -> tuple[bytes, int]:
    """The record that starts at `offset`, and where the next one starts.

    Raises ValueError, naming the byte, if none starts there or it is cut short.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        kind, length = _chunk(data, offset)
        if kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise ValueError(f"byte {offset}: the parts of a split record are out of order")
        size += length
        if size > LARGEST_IMAGE or len(parts) >= MOST_PARTS:
            raise ValueError(f"byte {offset}: a record of more than {LARGEST_IMAGE:,} bytes or {MOST_PARTS:,} parts")
        parts.append(data[offset + CHUNK.size : offset + CHUNK.size + length])
        offset += CHUNK.size + length + (-length & 3)
        if kind in (WHOLE, LAST):
            return MAGIC_BYTES.join(parts), offset


def _chunk(data: bytes | mmap.mmap, offset: int) -> tuple[int, int]:
    """(kind, length) of the chunk at `offset`."""
    if not 0 <= offset <= len(data) - CHUNK.size:
        raise ValueError(f"byte {offset}: the file ends where a record should start")
    magic, word = CHUNK.unpack_from(data, offset)
    if magic != MAGIC:
        raise ValueError(f"byte {offset}: no record starts here")
    kind, length = word >> 29, word & LONGEST
    left = len(data) - offset - CHUNK.size
    if length > left:
        raise ValueError(f"byte {offset}: a record claims {length:,} bytes where {left:,} are left")
    return kind, length


def unpack(record: bytes) -> tuple[float, int, bytes]:
    """(label, id, image) of a record; of several labels the first, which is the class.

    Raises ValueError if the record is shorter than it says.
    """
    if len(record) < HEADER.size:
        raise ValueError(f"a record of {len(record)} bytes is too short for its header")
    flag, label, identifier, _ = HEADER.unpack_from(record)
    image = HEADER.size + 4 * flag
    if image > len(record):
        raise ValueError(f"a record of {len(record):,} bytes claims {flag:,} labels")
    if flag:
        (label,) = struct.unpack_from("<f", record, HEADER.size)
    return label, identifier, record[image:]


def read_image(data: bytes | mmap.mmap, offset: int) -> tuple[float, bytes]:
    """(label, image) of the record at `offset`. Raises ValueError as `read_record` and `unpack` do."""
    if 0 <= offset <= len(data) - PLAIN.size:
        magic, word, flag, label = PLAIN.unpack_from(data, offset)
        end = offset + CHUNK.size + word
        # nearly all records: whole, with one label; the image is copied once
        if magic == MAGIC and flag == 0 and HEADER.size <= word < LARGEST_IMAGE and end <= len(data):
            return label, data[offset + CHUNK.size + HEADER.size : end]
    label, _, image = unpack(read_record(data, offset)[0])
    return label, image


def unpack_range(record: bytes) -> tuple[float, float] | None:
    """The two numbers of a record without an image, as InsightFace's header and identities are; else None."""
    if len(record) != HEADER.size + 8 or HEADER.unpack_from(record)[0] != 2:
        return None
    first, end = struct.unpack_from("<ff", record, HEADER.size)
    return first, end


def pack(labels: Sequence[float], identifier: int, image: bytes, id2: int = 0) -> bytes:
    """The record of an image with one label, or with several, or of a range without an image."""
    if len(labels) == 1:
        return HEADER.pack(0, labels[0], identifier, id2) + image
    header = HEADER.pack(len(labels), 0.0, identifier, id2)
    return header + struct.pack(f"<{len(labels)}f", *labels) + image


def frame(record: bytes) -> bytes:
    """The chunks of a record, ready to be written. Raises ValueError if a part exceeds 2^29 - 1 bytes."""
    cuts = _aligned_magics(record)
    starts = [0, *(cut + 4 for cut in cuts)]
    ends = [*cuts, len(record)]
    kinds = [FIRST, *[MIDDLE] * (len(cuts) - 1), LAST] if cuts else [WHOLE]
    chunks = []
    for kind, start, end in zip(kinds, starts, ends, strict=True):
        length = end - start
        if length > LONGEST:
            raise ValueError(f"a record of {len(record):,} bytes does not fit into RecordIO")
        chunks += [CHUNK.pack(MAGIC, kind << 29 | length), record[start:end], bytes(-length & 3)]
    return b"".join(chunks)


def _aligned_magics(record: bytes) -> list[int]:
    found = []
    at = record.find(MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            found.append(at)
        at = record.find(MAGIC_BYTES, at + (1 if at % 4 else 4))
    return found
