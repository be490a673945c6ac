"""The size of an encoded image from its header alone. Used before decoding, and where points are given as shares."""

import struct

import simplejpeg

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
OLD_BMP = b"\x0c\0\0\0"  # the size of its header


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a JPEG, PNG, BMP, WebP or PNM image as stored, before any rotation that EXIF asks for.

    Raises ValueError if the header is damaged or of another format.
    """
    try:
        if data.startswith(JPEG):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return height, width
        if data.startswith(PNG) and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data.startswith(b"BM"):
            # the oldest of BMP's headers, 12 bytes long, has 16-bit sizes
            width, height = struct.unpack_from("<HH" if data[14:18] == OLD_BMP else "<ii", data, 18)
            return abs(height), abs(width)  # a negative height means rows from the top
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:2] in (b"P5", b"P6"):
            fields = b" ".join(line.partition(b"#")[0] for line in data[:1024].split(b"\n")).split()
            if len(fields) < 4 or not (fields[1].isdigit() and fields[2].isdigit()):  # a number may be cut off
                raise ValueError("its header is damaged or too long")
            return int(fields[2]), int(fields[1])
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut short") from error
    raise ValueError("it is not JPEG, PNG, BMP, WebP or PNM" if data else "it is empty")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Of its three kinds: lossy, lossless and extended (developers.google.com/speed/webp/docs/riff_container)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind != b"VP8 ":
        raise ValueError("it is a WebP of an unknown kind")
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF
