"""Pickles of strangers, in verification sets and checkpoints: nothing runs, and memory and time stay small."""

import collections
import contextlib
import lzma
import os
import pickle
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bounded import outcome, refusal
from marginface.errors import InputError
from marginface.readers import safe_pickle
from marginface.readers.verification import open_verification
from marginface.weights import import_checkpoint
from marginface.weights.container import read
from marginface.weights.torch_file import read_torch

LIST, MARK, APPEND, APPENDS, REDUCE, BUILD = b"]", b"(", b"a", b"e", b"R", b"b"
START, STOP = b"\x80\x04", b"."


def short(content: bytes) -> bytes:
    return b"C" + bytes([len(content)]) + content


def long(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def unicode(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


def number(value: int) -> bytes:
    return b"\x8a" + bytes([16]) + value.to_bytes(16, "little", signed=True)


def put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


DTYPE = name("numpy", "dtype") + b"(" + short(b"u1") + b"tR"
ARRAY = name("numpy.core.multiarray", "_reconstruct") + b"(tR"


def doubled(levels: int = 60, empty: bytes = b"]", pair: bytes = b"\x86") -> bytes:
    """A value that holds itself twice, and so on: 2^levels when it is written out."""
    return empty + b"".join(put(i) + get(i) + pair for i in range(levels))


def encoded(text: bytes, times: int) -> bytes:
    """One long text, turned into bytes again and again."""
    again = name("_codecs", "encode") + b"(" + get(0) + unicode("latin1") + b"tR"
    return unicode(text.decode("latin1")) + put(0) + again * times


def array(shape: bytes, content: bytes = short(b"")) -> bytes:
    return ARRAY + b"(K\1" + shape + DTYPE + b"\x89" + content + b"tb"


def set_of(images: bytes, issame: bytes) -> bytes:
    return START + images + issame + b"\x86" + STOP


BOMBS = {
    "doubled lists as a name": START + name("numpy", "dtype") + b"(" + doubled() + b"tR" + STOP,
    "doubled tuples as a name": START + doubled(empty=b")") + b"V x\n\x93" + STOP,
    "doubled lists as an encoding": START + name("_codecs", "encode") + b"(" + short(b"") + doubled() + b"tR" + STOP,
    "doubled lists as bytes": START + name("builtins", "bytes") + b"(" + doubled() + b"tR" + STOP,
    "doubled lists as an order": START + name("numpy", "_frombuffer") + b"(C\1a" + DTYPE + b"K\1" + doubled()
    + b"tR" + STOP,
    "doubled lists as a shape": START + array(doubled()) + STOP,
    "doubled lists as images": set_of(doubled(), b"](\x88e"),
    "doubled tuples as keys": set_of(b"}" + doubled(empty=b")") + b"Ns", b"](\x88e"),
    "doubled tuples in a list": set_of(b"](" + doubled(empty=b")") + short(b"a") + b"e", b"](\x88e"),
    "doubled tuples as same": set_of(b"](C\1aC\1ae", b"](" + doubled(empty=b")") + b"e"),
    "lists in lists": START + b"](" + (b"](" * 200_000) + b"e" * 200_000 + b"e" + STOP,
    "tuples in tuples": START + b")" + b"\x85" * 1_000_000 + STOP,
    "dictionaries in dictionaries": START + b"}K\1" * 300_000 + b"N" + b"s" * 300_000 + STOP,
    "arrays in arrays": START + ARRAY * 100_000 + b"N" + b"b" * 100_000 + STOP,
    "text encoded again": START + encoded(b"\xe9" * 10_000_000, 2000) + STOP,
    "long names": START + unicode("a" * 5_000_000) + put(0) + (get(0) + get(0) + b"\x93") * 100_000 + STOP,
    "arguments again": START + b"(" + b"N" * 500_000 + b"t" + put(0)
    + (name("numpy", "ndarray") + get(0) + b"R") * 100_000 + STOP,
    "shapes again": START + b"(" + b"K\1" * 500_000 + b"t" + put(0) + array(get(0)) * 50_000 + STOP,
    "states again": START + b"(" + b"N" * 500_000 + b"t" + put(0) + (ARRAY + get(0) + b"b") * 100_000 + STOP,
    "places kept again": START + ARRAY + b"".join(map(put, range(300_000))) + (get(0) + b"Nb") * 300_000 + STOP,
    "steps": START + b"N" * 30_000_000 + STOP,
    "marks": START + b"(" * 20_000_000 + STOP,
    "empty lists": START + b"]" * 20_000_000 + STOP,
    "dictionaries": START + b"}" * 20_000_000 + STOP,
    "keys of one hash": START + b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(150_000)) + b"u" + STOP,
    "places of one hash": START + b"N" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(150_000)) + STOP,
    "a long number": START + b"L" + b"9" * 3_000_000 + b"\n" + STOP,
    "a long fraction": START + b"F0." + b"9" * 3_000_000 + b"\n" + STOP,
    "sides hidden by 0": set_of(b"](C\1aC\1ae", array(b"J\xff\xff\xff\x7fK\0\x86")),
    "images hidden by 0": set_of(array(b"J\xfe\xff\xff\x7fK\0\x86"), b"](\x88e"),
    "a matrix without sides": set_of(array(b")", short(b"a")), b"](\x88e"),
    "same without sides": set_of(b"](C\1aC\1ae", array(b")", short(b"\1"))),
    "claims 4 GB": START + b"B\xff\xff\xff\xffa" + STOP,
    "claims an exabyte": START + b"\x8e" + b"\xff" * 7 + b"\x0fa" + STOP,
    "a memo of a billion places": START + b"Nr\xff\xff\xff\xffp99999999999999999999\n" + STOP,
    "one image for all": set_of(
        b"](" + array(b"J" + struct.pack("<i", 5_000_000) + b"\x85", long(bytes(5_000_000))) + put(0)
        + get(0) * 3999 + b"e", b"](" + b"\x88" * 2000 + b"e"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_verification_sets_that_are_bombs(tmp_path, bomb):
    path = tmp_path / "set.bin"
    path.write_bytes(BOMBS[bomb])
    assert refusal(open_verification, path, memory=900 << 20).startswith(f"{path}: ")


def test_the_file_of_385_bytes(tmp_path):
    """Lists doubled sixty times, which took for ever as a name."""
    path = tmp_path / "set.bin"
    path.write_bytes(
        START
        + name("numpy", "dtype")
        + b"("
        + b"]"
        + b"".join(b"q%c" % i + b"h%c" % i + b"\x86" for i in range(60))
        + b"tR"
        + STOP
    )
    assert path.stat().st_size < 385
    assert "a name that is no text" in refusal(open_verification, path)


def test_one_image_for_two_pairs_is_no_bomb(tmp_path):
    image = bytes(1000)
    (tmp_path / "set.bin").write_bytes(pickle.dumps(([image, b"b", image, b"c"], [True, False])))
    found = open_verification(tmp_path / "set.bin").images
    assert [record.image for record in found] == [image, b"b", image, b"c"]


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (bytes(500_000_000), {"preset": 0}, "unpacks to more than"),
        (
            START + STOP,
            {
                "filters": [
                    {"id": lzma.FILTER_LZMA2, "dict_size": 1536 << 20, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}
                ]
            },
            "not a verification set that can be read",
        ),
    ],
    ids=["zeros", "dictionary"],
)
def test_packed_sets_that_are_bombs(tmp_path, content, options, reason):
    if "filters" in options:  # a packer would take the memory that it asks of the unpacker
        packed = bytearray(lzma.compress(content, preset=0))
        at = packed.index(b"\x21\x01", 12) + 2
        packed[at] = 39  # a dictionary of 3 GB
        packed[20:24] = struct.pack("<I", zlib.crc32(packed[12:20]))
    else:
        packed = lzma.compress(content, **options)
    (tmp_path / "set.xz").write_bytes(packed)
    assert reason in refusal(open_verification, tmp_path / "set.xz", memory=900 << 20)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(-9, 2**31), inner)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(plain, st.integers(0, 5))
def test_plain_data_is_read_as_pickle_reads_it(value, protocol):
    assert safe_pickle.load(pickle.dumps(value, protocol)) == value


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([bytes([code]) for code in range(256)] + [b"\x8a\1", b"K\1", b"q\0", b"h\0", DTYPE, ARRAY])
    )
)
def test_any_order_of_steps_ends_with_a_value_or_a_sentence(steps):
    started = time.process_time()
    with contextlib.suppress(ValueError):
        safe_pickle.load(START + b"".join(steps) + STOP)
    assert time.process_time() - started < 2


# Checkpoints


def everything():
    """What checkpoints of training frameworks hold."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3, 5, 5)).sum().backward()
    optimiser.step()
    shared = torch.arange(24, dtype=torch.float32)
    return {
        "state_dict": network.state_dict(),
        "optimizer": optimiser.state_dict(),
        "milestones": collections.Counter({3: 1}),
        "epochs": collections.OrderedDict([(0, 0.5), ("a", [1, (2, 3)])]),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "set": {1, 2},
        "array": np.arange(3.0),
        "parameter": torch.nn.Parameter(torch.ones(2, dtype=torch.float64)),
        "views": [shared, shared[3:9], shared.view(4, 6).T, shared[::5], torch.tensor(3), torch.empty(0, 4)],
        "types": [torch.arange(5).to(dtype) for dtype in TYPES],
    }


TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.float8_e4m3fn,
]  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_are_read_as_torch_reads_them(tmp_path, old, protocol):
    content = everything()
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    found = read(path)
    for key in ("state_dict", "parameter", "types"):
        assert_equal(found[key], content[key])
    assert_equal(found["optimizer"], content["optimizer"])
    assert found["epochs"] == {0: 0.5, "a": [1, (2, 3)]}
    assert_equal(found["views"], content["views"])
    found["views"][0][4] = -1
    assert found["views"][1][1] == -1  # still one storage


def assert_equal(one, other):
    if isinstance(other, torch.Tensor):
        assert one.dtype == other.dtype
        assert (
            torch.equal(one, other) if other.dtype != torch.float8_e4m3fn else torch.equal(one.float(), other.float())
        )
    elif isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in other:
            assert_equal(one[key], other[key])
    elif isinstance(other, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def zipped(path, content: bytes, method: int = zipfile.ZIP_STORED, **storages: bytes):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x/data.pkl", content)
        for key, storage in storages.items():
            archive.writestr(f"x/data/{key.removeprefix('_')}", storage)


def tensor(size: list[int], stride: list[int], count: int = 1, key: str = "0", offset: int = 0) -> bytes:
    """A tensor in a pickle of protocol 2, of a storage that lies beside it."""
    storage = b"(" + unicode("storage") + name("torch", "FloatStorage") + unicode(key) + unicode("cpu")
    storage += number(count) + b"tQ"
    shape, steps = (b"(" + b"".join(map(number, sides)) + b"t" for sides in (size, stride))
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + number(offset) + shape + steps + b"\x89}tR"


def state(value: bytes, start: bytes = b"\x80\x02") -> bytes:
    return start + b"}" + unicode("weight") + value + b"s" + STOP


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


CHECKPOINTS = {
    "expanded from one number": state(tensor([1 << 20, 1 << 20], [0, 0])),
    "beyond its storage": state(tensor([4], [1])),
    "far beyond its storage": state(tensor([1 << 40], [1])),
    "negative": state(tensor([-1], [1])),
    "negative strides": state(tensor([1], [-4])),
    "before its storage": state(tensor([1], [1], offset=-8)),
    "of many sides": state(tensor([1] * 100_000, [1] * 100_000)),
    "of half a shape": state(tensor([1], [])),
    "of a huge storage": state(tensor([1], [1], count=1 << 50)),
    "of a negative storage": state(tensor([1], [1], count=-1)),
    "bytearray": state(call("builtins", "bytearray", number(1 << 40))),
    "Tensor": state(call("torch", "Tensor", number(1 << 20), number(1 << 20))),
    "FloatStorage": state(call("torch", "FloatStorage", number(1 << 40))),
    "no storage": state(tensor([1], [1], key="7")),
    "doubled lists as a storage": state(b"(" + doubled() * 5 + b"tQ"),
    "doubled lists as a key": state(b"(" + unicode("storage") + name("torch", "FloatStorage") + doubled() + b"NK\1tQ"),
    "doubled lists in a dictionary": state(doubled(2000)),
    "type of itself": state(
        b"](" + name("torch._tensor", "_rebuild_from_type_v2") + b"N" + get(0) + b"e" + put(0)
        + call("torch._tensor", "_rebuild_from_type_v2", name("torch._tensor", "_rebuild_from_type_v2"), b"N", get(0))
    ),
    "dictionary of all again": state(
        b"](" + (b"NN\x86" * 200_000) + b"e" + put(0) + call("collections", "OrderedDict", get(0)) * 200_000
    ),
    "no pairs again": state(
        b"](" + (b"N" * 400_000) + b"e" + put(0) + call("collections", "OrderedDict", get(0)) * 100_000
    ),
    "nested": b"\x80\x02" + b"}K\1" * 300_000 + b"N" + b"s" * 300_000 + STOP,
    "stand-ins": state(call("yacs.config", "CfgNode", doubled())),
    "storages again": b"\x80\x02](" + tensor([1], [1]) * 100_000 + b"e" + STOP,
    "a system call": state(call("os", "system", unicode("true"))),
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("bomb", CHECKPOINTS)
def test_checkpoints_that_are_bombs(tmp_path, bomb, old):
    path = tmp_path / "x.pth"
    if old:
        head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        path.write_bytes(head + CHECKPOINTS[bomb] + pickle.dumps(["0"], 2) + struct.pack("<qf", 1, 1.0))
    else:
        zipped(path, CHECKPOINTS[bomb], _0=struct.pack("<f", 1.0))
    assert refusal(import_checkpoint, path, memory=900 << 20).startswith(str(path))


def test_a_storage_that_all_tensors_share_is_bounded(tmp_path):
    path = tmp_path / "x.pth"
    many = b"".join(unicode(f"a{i}") + tensor([250_000], [1], count=250_000) for i in range(500))
    zipped(path, b"\x80\x02}(" + many + b"u" + STOP, _0=bytes(1_000_000))
    assert "truncated or no PyTorch checkpoint" in refusal(import_checkpoint, path)


def test_compressed_members_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    zipped(path, state(tensor([100_000_000], [1], 100_000_000)), zipfile.ZIP_DEFLATED, _0=bytes(400_000_000))
    assert refusal(import_checkpoint, path, memory=300 << 20).startswith(str(path))


def test_overlapping_members_are_refused(tmp_path):
    """Every entry of the directory names the same bytes."""
    path = tmp_path / "x.pth"
    many = b"".join(unicode(f"a{i}") + tensor([250_000], [1], 250_000, f"{i:04}") for i in range(500))
    storages = {f"_{i:04}": b"" for i in range(1, 500)}
    zipped(path, b"\x80\x02}(" + many + b"u" + STOP, _0000=bytes(1_000_000), **storages)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)  # behind that of data.pkl
    first = bytes(data[entry : entry + 46])
    while (entry := data.find(b"PK\x01\x02", entry + 4)) >= 0:
        data[entry + 16 : entry + 28] = first[16:28]  # checksum and sizes
        data[entry + 42 : entry + 46] = first[42:46]  # where it lies
    path.write_bytes(data)
    assert refusal(import_checkpoint, path, memory=300 << 20).startswith(str(path))


def test_old_storages_claim_no_more_than_there_is(tmp_path):
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
    for count in (-1, 2, 1 << 61, 1 << 62):
        path = tmp_path / f"{count}.pth"
        path.write_bytes(head + state(tensor([1], [1])) + pickle.dumps(["0"], 2) + struct.pack("<qf", count, 1.0))
        assert "truncated or no PyTorch checkpoint" in refusal(import_checkpoint, path)


def test_nothing_of_a_checkpoint_runs(tmp_path):
    """Every name that is passed over stays a name."""
    mark = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    for old in (False, True):
        torch.save({"weight": torch.ones(1), "x": Attack()}, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(InputError, match=r"is refused: it would run (posix|nt)\.system"):
            read(tmp_path / "x.pth")
    assert not mark.exists()
    zipped(tmp_path / "y.pth", state(call("numpy.f2py", "os.system", unicode(f"touch {mark}"))))
    kind, found = outcome(read_names, tmp_path / "y.pth")
    assert (kind, found) == ("returned", ["weight"])
    assert not mark.exists()


def read_names(path):
    return list(read_torch(path, lambda name: True))
