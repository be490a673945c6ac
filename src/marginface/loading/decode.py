"""Encoded bytes to RGB pixels, on threads: the slowest step from record to batch. Called by the loader."""

import contextlib
import functools
import os
import re
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import simplejpeg

from marginface.errors import InputError
from marginface.readers.base import Record
from marginface.readers.image_size import JPEG, PNG, image_size

TABLES, AFTER_JFIF = b"\xff\xdb", 20  # the marker of a JPEG's quantisation tables; where its first segment ends
MAX_PIXELS = 1 << 26  # 200 MB once decoded; what claims to be larger is refused before memory is taken
LARGE = 1 << 24  # pixels from which on images are decoded one after the other, for the memory that they take
SCAN, MOST_SCANS = b"\xff\xda", 64  # of a progressive JPEG, each of which goes through the whole image
MARKER = re.compile(
    rb"\xff[\xc0-\xcf\xd8-\xfe]"
)  # of a JPEG, with a length; libjpeg passes over others or refuses them
END_OF_JPEG, START_OF_SCAN = 0xD9, 0xDA
TEXTS, MOST_CHUNKS = (b"zTXt", b"iTXt"), 1 << 16  # of a PNG
FEW_BYTES = 1 << 20  # of packed pixels, which unpack to a thousand times as much at most
USUAL_BYTES = 1 << 18  # of an image that is decoded without looking at it first


def decode(record: Record) -> np.ndarray:
    """The picture of a record as RGB uint8 (H, W, 3).

    Arrays pass through, grey becomes RGB, alpha is dropped, 16 bits become 8, CMYK is converted, and the
    rotation that EXIF asks for is made.

    Raises InputError, naming the record, if the image is damaged, truncated, not JPEG, PNG, BMP, WebP or PNM,
    or larger than MAX_PIXELS.
    """
    return _decode(record, None)


def decode_batch(
    records: Sequence[Record],
    size: int = 112,
    resize: bool = False,
    threads: int = 1,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Pictures of many records: RGB uint8 (N, size, size, 3), and {position: reason} of those not readable.

    Rows of unreadable images are zero: the caller leaves them out. With `resize`, the short side is scaled to
    `size` and the middle cut out. out: where the pictures go; new memory costs a tenth of the time of decoding.

    Raises InputError for an image of another size, unless `resize` is given.
    """
    images = np.empty((len(records), size, size, 3), dtype=np.uint8) if out is None else out
    failures: dict[int, str] = {}

    def fill(positions: range) -> None:
        for position in positions:
            row = images[position]
            try:
                picture = _decode(records[position], row)
            except InputError as error:
                failures[position] = str(error)
                row[:] = 0
                continue
            if picture is not row:
                row[:] = _fit(picture, size, resize, records[position].key)

    # four pieces a thread even out images of different cost
    piece = max(1, -(-len(records) // (4 * threads)))
    pieces = [range(start, min(start + piece, len(records))) for start in range(0, len(records), piece)]
    if threads > 1:
        list(_pool(threads, os.getpid()).map(fill, pieces))
    else:
        fill(range(len(records)))
    return images, dict(sorted(failures.items()))


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept from batch to batch; a forked process must not inherit one, hence its number in the key."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"decode-{process}")


def _decode(record: Record, out: np.ndarray | None) -> np.ndarray:
    """As `decode`; a plain JPEG of exactly the size of `out` is decoded into it, and only then `out` is returned."""
    if isinstance(record.image, np.ndarray):
        return _checked_array(record.image, record.key)
    if out is not None and _decoded_into(out, record.image):
        return out
    try:
        height, width = image_size(record.image)
        _check_claims(height, width, record.image)
        with _one_at_a_time(os.getpid()) if height * width > LARGE else contextlib.nullcontext():
            return _decode_bytes(record.image)
    except (ValueError, cv2.error) as error:
        raise InputError(f"{record.key}: the image cannot be read: {_reason(error)}.") from error


def _decode_bytes(data: bytes) -> np.ndarray:
    if not data.startswith(JPEG):
        return _decode_by_opencv(_without_texts(data) if data.startswith(PNG) else data)
    picture: np.ndarray = simplejpeg.decode_jpeg(data)  # which also finds those cut short
    return _decode_by_opencv(data) if _has_exif(data) else picture


@functools.cache
def _one_at_a_time(process: int) -> threading.Lock:
    """A forked process must not inherit a lock that a thread of the first one holds, hence its number in the key."""
    return threading.Lock()


def _check_claims(height: int, width: int, data: bytes) -> None:
    """Raises ValueError for an image that takes much more memory or time than a photograph."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"it claims {width}×{height} pixels, more than the {MAX_PIXELS:,} allowed")
    if data.startswith(JPEG) and data.count(SCAN) > MOST_SCANS and _has_many_scans(data):
        raise ValueError(f"it has more than {MOST_SCANS} scans; save it again")
    if data.startswith(PNG):
        _check_png(height, width, data)


def _check_png(height: int, width: int, data: bytes) -> None:
    """Raises ValueError for a PNG that makes OpenCV take memory or time for more than its pixels."""
    chunks = _png_chunks(data)
    if chunks and chunks[-1][2] > len(data):
        raise ValueError("it is truncated")
    pixels = [(start + 8, end - 4) for kind, start, end in chunks if kind == b"IDAT"]
    if sum(end - start for start, end in pixels) <= FEW_BYTES:
        return
    unpacker, left = zlib.decompressobj(), height * (8 * width + 8)  # four channels of 16 bits, and the filters
    for start, end in pixels:
        packed = data[start:end]
        while packed and not unpacker.eof:
            try:
                left -= len(unpacker.decompress(packed, FEW_BYTES))
            except zlib.error:  # the decoder comes no further either, and says why
                return
            if left < 0:
                raise ValueError("it unpacks to more than its pixels take; save it again")
            packed = unpacker.unconsumed_tail


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk before the one that ends a PNG; the last may claim more than there is."""
    chunks: list[tuple[bytes, int, int]] = []
    at = len(PNG)
    while at < len(data) and (kind := data[at + 4 : at + 8]) != b"IEND":
        if len(chunks) == MOST_CHUNKS:
            raise ValueError(f"it has more than {MOST_CHUNKS:,} chunks; save it again")
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append((kind, at, end))
        at = end
    return chunks


def _without_texts(data: bytes) -> bytes:
    """A PNG without its compressed texts: OpenCV unpacks and keeps up to 8 MB of each, though nobody reads them."""
    if not any(kind in data for kind in TEXTS):
        return data
    kept, at = bytearray(), 0
    for kind, start, end in _png_chunks(data):
        if kind in TEXTS:
            kept += data[at:start]
            at = end
    return bytes(kept + data[at:])


def _has_many_scans(data: bytes) -> bool:
    """Whether these bytes are scans: they also occur in what cameras append, such as a video."""
    at, scans = 2, 0
    while (found := MARKER.search(data, at)) and data[found.end() - 1] != END_OF_JPEG and scans <= MOST_SCANS:
        scans += data[found.end() - 1] == START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans > MOST_SCANS


def _decoded_into(out: np.ndarray, data: bytes) -> bool:
    """The way of nearly all training images, with nothing that costs time; False for anything out of the ordinary."""
    if not data.startswith(JPEG) or len(data) > USUAL_BYTES or _has_exif(data):
        return False
    try:
        picture = simplejpeg.decode_jpeg(data, buffer=out)  # refuses what is larger than `out` before decoding
    except ValueError:
        return False
    return bool(picture.shape == out.shape)


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has the segment that may ask for a rotation; some programs put others before it."""
    if data.startswith(TABLES, AFTER_JFIF):  # as most have it: the tables follow at once, and no such segment them
        return False
    return data.find(b"Exif\0\0", 0, 4096) >= 0


def _decode_by_opencv(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("it is damaged or truncated")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _checked_array(image: np.ndarray, key: str) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"{key}: the image is a {image.dtype} array of shape {image.shape}; expected RGB uint8 (H, W, 3)."
        )
    return image


def _fit(picture: np.ndarray, size: int, resize: bool, key: str) -> np.ndarray:
    height, width = picture.shape[:2]
    if (height, width) == (size, size):
        return picture
    if not resize:
        raise InputError(
            f"{key}: the image is {width}×{height} pixels, not {size}×{size}; align the faces first with"
            f" `marginface align SRC DST`, or scale them with `--resize true` (in training `--data.resize true`)."
        )
    scale = size / min(height, width)
    new_width, new_height = max(size, round(width * scale)), max(size, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(picture, (new_width, new_height), interpolation=method)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return scaled[top : top + size, left : left + size]


def _reason(error: Exception) -> str:
    """The decoders' own words, short and on one line."""
    text = str(error).strip().splitlines()[0].rstrip(".")
    return text if isinstance(error, ValueError) else f"it is damaged ({text[:120]})"
