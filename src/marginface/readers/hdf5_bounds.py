"""How far an HDF5 file may lead its library: the walk through its groups, and what its data sets unpack to. For `hdf5`.

The library follows groups in each other by recursion, and unpacks a chunk to whatever its deflate stream holds, however
small the chunk is said to be.
"""

import math
import zlib
from typing import Any

from marginface.readers.archive_index import FREE_GROWTH, GROWTH
from marginface.untrusted import LARGEST_IMAGE

DEEPEST = 16  # groups in each other
LONGEST_PATH = 512
MOST_CHUNKS = 4096  # of one image
DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
FILTERS: tuple[list[int], ...] = ([], [DEFLATE], [LZF])
"""What may be done to bytes before they are stored, beside shuffling them and adding a checksum."""


def image_names(file: Any, library: Any) -> list[str]:
    """Paths of the data sets that lie in some group, each once; soft and external links are not followed.

    Raises ValueError for groups that are nested too deeply, and for long paths.
    """
    names: list[str] = []
    seen: set[int] = set()
    waiting = [("", file.id, 0)]
    while waiting:
        path, group, depth = waiting.pop()
        links: list[tuple[bytes, int, int]] = []
        group.links.iterate(lambda name, info, links=links: links.append((name, info.type, info.u)), info=True)
        for link, kind, address in links:
            if kind != library.h5l.TYPE_HARD or address in seen:
                continue
            seen.add(address)
            name = path + link.decode("utf-8", "surrogateescape")
            if len(name) > LONGEST_PATH or depth >= DEEPEST:
                raise ValueError(f"{name!r:.80} is nested too deeply or has too long a name")
            item = library.h5o.open(group, link)
            if isinstance(item, library.h5g.GroupID):
                waiting.append((f"{name}/", item, depth + 1))
            elif isinstance(item, library.h5d.DatasetID) and depth:
                names.append(name)
    return names


def check_data_set(stored: Any) -> None:
    """Raises ValueError for a data set that takes more memory than an image, or than its bytes in the file allow."""
    size = stored.size * stored.dtype.itemsize
    if size > LARGEST_IMAGE or (stored.dtype.hasobject and stored.shape):
        raise ValueError(f"it claims {size:,} bytes")
    if stored.dtype.hasobject:  # one text, as long as it is in the file
        return
    packed = stored.id.get_storage_size()
    if size > FREE_GROWTH + GROWTH * packed:
        raise ValueError(f"it claims {size:,} bytes, packed into {packed:,}")
    if stored.chunks is not None:
        _check_chunks(stored)


def _check_chunks(stored: Any) -> None:
    size = math.prod(stored.chunks) * stored.dtype.itemsize
    count = math.prod(-(-side // chunk) for side, chunk in zip(stored.shape, stored.chunks, strict=True))
    if size > LARGEST_IMAGE or count > MOST_CHUNKS:
        raise ValueError(f"it claims {count:,} chunks of {size:,} bytes")
    properties = stored.id.get_create_plist()
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    packers = [one for one in filters if one not in (SHUFFLE, FLETCHER32)]
    if packers not in FILTERS or len(set(filters)) != len(filters):
        raise ValueError(
            f"it is packed by filters that are not read ({filters}); unpack the file with h5repack -f NONE"
        )
    if packers != [DEFLATE]:
        return
    places: list[tuple[int, ...]] = []
    stored.id.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
    for place in places:
        skipped, content = stored.id.read_direct_chunk(place)
        if skipped >> filters.index(DEFLATE) & 1:
            continue
        if len(zlib.decompressobj().decompress(content, size + 1)) > size:
            raise ValueError(f"a chunk unpacks to more than its {size:,} bytes")
