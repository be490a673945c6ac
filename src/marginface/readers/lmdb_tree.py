"""Looks up keys in an LMDB file without its library, which a damaged file crashes. For `lmdb_set`.

Read-only, 64-bit little-endian, the main database without duplicates (format: mdb.c of LMDB 0.9). A page starts
with its number, 2 bytes unused, flags, and where its free space lies; then come the offsets of its nodes,
sorted by key. Of a branch a node names a page, of a leaf it holds the value or names the pages that do.
"""

import mmap
import struct

from marginface.untrusted import LARGEST_IMAGE

PAGE_HEADER = struct.Struct("<QHHHH")
NODE = struct.Struct("<HHHH")  # size or page (low, high), flags (or page, highest), length of the key
META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
DATABASE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, 3 kinds of pages, entries, root
MAGIC = 0xBEEFC0DE
BRANCH, LEAF, OVERFLOW = 0x01, 0x02, 0x04
BIG_VALUE = 0x01
NO_PAGE = (1 << 64) - 1


class Tree:
    """The main database of an LMDB file. Raises ValueError, naming the byte, wherever the file is damaged."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._page_size = 0
        self._page_size, first_turn, first_root = self._meta(0)
        _, turn, root = self._meta(self._page_size)
        self._root = root if turn > first_turn else first_root

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if there is no such key."""
        page = self._root
        if page == NO_PAGE:
            return None
        for _ in range(64):  # deeper than any tree of 2^64 pages; a damaged one may go in circles
            nodes, branch = self._nodes(page)
            at = self._last_not_after(nodes, key, first=1 if branch else 0)
            if not branch:
                return self._value(nodes[at], key) if at >= 0 else None
            page = self._child(nodes[max(at, 0)])
        raise ValueError("its pages point in a circle")

    def _meta(self, start: int) -> tuple[int, int, int]:
        """(page size, number of the transaction, root page) of one of the two pages that describe the file."""
        at = start + PAGE_HEADER.size
        if META.unpack_from(self._bytes(at, META.size))[0] != MAGIC:
            raise ValueError(f"byte {at}: no LMDB file")
        at += META.size
        page_size = DATABASE.unpack_from(self._bytes(at, DATABASE.size))[0]
        root = DATABASE.unpack_from(self._bytes(at + DATABASE.size, DATABASE.size))[-1]
        (turn,) = struct.unpack("<Q", self._bytes(at + 2 * DATABASE.size + 8, 8))
        if page_size not in (1 << power for power in range(8, 17)):
            raise ValueError(f"byte {at}: pages of {page_size} bytes")
        return page_size, turn, root

    def _nodes(self, page: int) -> tuple[list[int], bool]:
        """(byte offsets of the nodes of a page, whether it is a branch)."""
        start = page * self._page_size
        number, _, flags, lower, _ = PAGE_HEADER.unpack(self._bytes(start, PAGE_HEADER.size))
        count = (lower - PAGE_HEADER.size) // 2
        kind = flags & (BRANCH | LEAF)
        if number != page or kind not in (BRANCH, LEAF) or not 0 < count <= self._page_size // 2:
            raise ValueError(f"byte {start}: no page of keys")
        pointers = struct.unpack(f"<{count}H", self._bytes(start + PAGE_HEADER.size, 2 * count))
        return [start + pointer for pointer in pointers], kind == BRANCH

    def _last_not_after(self, nodes: list[int], key: bytes, first: int) -> int:
        """Which node has the greatest key that is not greater; a branch's first node has no key of its own."""
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(nodes[middle]) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _key(self, node: int) -> bytes:
        length = NODE.unpack(self._bytes(node, NODE.size))[3]
        return self._bytes(node + NODE.size, length)

    def _child(self, node: int) -> int:
        low, middle, high, _ = NODE.unpack(self._bytes(node, NODE.size))
        return int(low | middle << 16 | high << 32)

    def _value(self, node: int, key: bytes) -> bytes | None:
        low, high, flags, length = NODE.unpack(self._bytes(node, NODE.size))
        if self._bytes(node + NODE.size, length) != key:
            return None
        size, at = low | high << 16, node + NODE.size + length
        if flags & BIG_VALUE:
            (page,) = struct.unpack("<Q", self._bytes(at, 8))
            at = page * self._page_size + PAGE_HEADER.size
        elif flags:
            raise ValueError(f"byte {node}: a value of a kind that is not read")
        if size > LARGEST_IMAGE:
            raise ValueError(f"byte {node}: a value of {size:,} bytes")
        return self._bytes(at, size)

    def _bytes(self, start: int, count: int) -> bytes:
        if not 0 <= start <= len(self._data) - count:
            raise ValueError(f"byte {start}: {count} bytes beyond the end of the file")
        return self._data[start : start + count]
