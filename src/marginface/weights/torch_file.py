"""Files of `torch.save` without `torch.load`: tensors are built here from bytes, and nothing of the pickle is run.

`torch.load` of foreign files, also with weights_only, takes the memory and time that a file asks for: compressed
members, tensors expanded from one number, bytearrays of any size. Format: torch/serialization.py. A zip archive, as
since version 1.6, holds `data.pkl` and a member for each storage; an older file is five pickles (magic number,
protocol, system, content, keys of the storages) and then the storages, each a number of elements and its bytes.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marginface.readers.archive_index import STORED, Member, zip_members, zip_start
from marginface.readers.mapped import map_file
from marginface.readers.pickle_machine import OPAQUE, Function, Machine, plain_items, text

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}
MOST_DIMENSIONS = 16
MOST_SHARED = 4
"""All tensors together may have so many times the bytes of the file: some share a storage."""


class RefusedName(ValueError):
    """The pickle names something that no checkpoint needs: `name`, in full."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it names {name}")
        self.name = name


def read_torch(path: Path, harmless: Callable[[str], bool]) -> Any:
    """What `torch.save` wrote, tensors on the CPU. Whatever else the file holds is `OPAQUE`, or a plain value.

    harmless: whether a name stands for something that may be passed over; any other raises RefusedName. Raises
    ValueError for files that are damaged, of another kind, or claim more than they hold.
    """
    data = map_file(path)
    return _read_zip(path, data, harmless) if data[:2] == b"PK" else _read_old(data, harmless)


def _read_zip(path: Path, data: mmap.mmap, harmless: Callable[[str], bool]) -> Any:
    members = {member.name: member for member in zip_members(path)}
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("it holds no data.pkl, or several")
    root = pickles[0].removesuffix("data.pkl")

    def content(name: str) -> memoryview:
        if root + name not in members:
            raise ValueError(f"{name!r:.80} is missing")
        return _stored(data, members[root + name])

    if f"{root}byteorder" in members and content("byteorder").tobytes() != b"little":
        raise ValueError("it was saved on a machine of another byte order")
    builder = _Builder(len(data), harmless, lambda key, _: content(f"data/{key}"))
    return builder.run(bytes(content("data.pkl")))[0]


def _stored(data: mmap.mmap, member: Member) -> memoryview:
    if member.method != STORED or member.size != member.packed_size:
        raise ValueError(f"{member.name!r:.80} is compressed, which torch.save never does")
    start = zip_start(data, member)
    content = memoryview(data)[start : start + member.size]
    if zlib.crc32(content) != member.checksum:
        raise ValueError(f"the checksum of {member.name!r:.80} is wrong")
    return content


def _read_old(data: mmap.mmap, harmless: Callable[[str], bool]) -> Any:
    """The storages follow the content, which alone tells their types: it is read again once they are found."""
    sizes: dict[str, int] = {}

    def note(key: str, dtype: torch.dtype) -> None:
        sizes[key] = dtype.itemsize

    builder = _Builder(len(data), harmless, note)
    magic, at = builder.run(data)
    if magic != MAGIC_NUMBER:
        raise ValueError("it does not begin as files of torch.save do")
    _, at = builder.run(data, at)  # the protocol
    _, start = builder.run(data, at)  # the system
    _, at = builder.run(data, start)
    keys, at = builder.run(data, at)
    places = {}
    for key in map(text, keys):
        (count,) = struct.unpack_from("<q", data, at)
        size = count * sizes.get(key, 1)
        if not 0 <= size <= len(data) - at - 8:
            raise ValueError(f"storage {key!r:.40} claims {count:,} elements")
        places[key] = memoryview(data)[at + 8 : at + 8 + size]
        at += 8 + size
    return _Builder(len(data), harmless, lambda key, _: places[key]).run(data, start)[0]


@dataclass
class _Builder:
    """Makes tensors of what a pickle says.

    size: bytes of the file. harmless: as for `read_torch`. content: (key, dtype) -> the bytes of a storage; None leaves
    its tensors out.
    """

    size: int
    harmless: Callable[[str], bool]
    content: Callable[[str, torch.dtype], memoryview | None]
    storages: dict[str, Tensor] = field(default_factory=dict)
    made: int = 0

    def run(self, data: bytes | mmap.mmap, at: int = 0) -> tuple[Any, int]:
        """(content of the pickle at this byte, the byte behind it)."""
        machine = Machine(data, self._find, self._storage, at)
        found = machine.run()
        return found, machine.at

    def _find(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        full = f"{module}.{name}"
        if full in self._calls():
            return Function(self._calls()[full])
        if not self.harmless(full):
            raise RefusedName(full)
        return Function(_dictionary) if name.lower().endswith("dict") else OPAQUE

    def _calls(self) -> dict[str, Callable[..., Any]]:
        return {
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_of_dtype,
            "torch._utils._rebuild_parameter": _first,
            "torch._utils._rebuild_parameter_with_state": _first,
            "torch.nn.parameter.Parameter": _first,
            "torch._tensor._rebuild_from_type_v2": self._tensor_of_type,
        }

    def _storage(self, identifier: Any) -> Any:
        """The elements of a storage, (n,). identifier: "storage", dtype, key, device, n, and in old files a view."""
        kind, dtype, key, _, count, *view = identifier
        if kind not in ("storage", b"storage") or not _is_natural(count):
            raise ValueError("it refers to something that is no storage")
        if not isinstance(dtype, torch.dtype):
            return OPAQUE
        key = text(key)
        if key not in self.storages:
            content = self.content(key, dtype)
            if content is None:
                return OPAQUE
            self.storages[key] = _bytes(content)
        size = count * dtype.itemsize
        if size > len(self.storages[key]):
            raise ValueError(f"a storage claims {size:,} bytes where it has {len(self.storages[key]):,}")
        found = self.storages[key][:size].view(dtype)
        if view and view[0] is not None:
            _, start, length = view[0]
            found = found[start : start + length]
        return found

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        if not isinstance(storage, Tensor):
            return OPAQUE
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > MOST_DIMENSIONS or not all(map(_is_natural, numbers)):
            raise ValueError("a tensor of an impossible shape")
        elements = math.prod(size)
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if elements > storage.numel() or (elements and last >= storage.numel()):
            raise ValueError(f"a tensor of {elements:,} elements in a storage of {storage.numel():,}")
        self.made += elements * storage.element_size()
        if self.made > MOST_SHARED * self.size:
            raise ValueError("its tensors claim more than it holds")
        return torch.as_strided(storage, size, stride, offset)

    def _tensor_of_dtype(
        self, storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
    ) -> Any:
        if not isinstance(storage, Tensor) or not isinstance(dtype, torch.dtype):
            return OPAQUE
        whole = storage.numel() // dtype.itemsize * dtype.itemsize  # of bytes, as such storages have no type
        return self._tensor(storage[:whole].view(dtype), offset, size, stride)

    def _tensor_of_type(self, function: Any, _: Any, arguments: Any, *__: Any) -> Any:
        """Of a subclass of Tensor, or one with attributes: the plain tensor."""
        inner = function.call if isinstance(function, Function) else None
        return inner(*arguments) if inner in (self._tensor, self._tensor_of_dtype) else OPAQUE


def _bytes(content: memoryview) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _is_natural(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < 1 << 62


def _first(content: Any = OPAQUE, *_: Any) -> Any:
    return content


def _dictionary(items: Any = (), *_: Any) -> dict[Any, Any]:
    """An OrderedDict or another dictionary, which some protocols write as one of its pairs."""
    if isinstance(items, dict):
        return dict(items)
    pairs = items if isinstance(items, list | tuple) else ()
    return plain_items(pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2)
