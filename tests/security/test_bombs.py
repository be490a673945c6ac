"""Small files that stand for large ones, in every format that is read: refused within bounded memory and time."""

import io
import json
import lzma
import os
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import h5py
import lmdb
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bounded import outcome, refusal
from bounded_imports import decode_file, read_first
from marginface.embedder import Embedder, ModelConfig
from marginface.evaluate.attributes import Attributes
from marginface.evaluate.embeddings_file import EmbeddingsFile
from marginface.evaluate.saved import choose_result
from marginface.protocols.matlab import read_names
from marginface.protocols.pairs_file import parse_pairs
from marginface.protocols.saved import load_results
from marginface.readers import open_reader
from marginface.readers.recordio_format import frame, pack
from marginface.readers.verification import open_verification
from marginface.training.config_file import check_config_file
from marginface.training.status import read_status
from marginface.weights import import_checkpoint
from marginface.weights.figures import read_figures

SMALL = 300 << 20  # bytes that nothing here may take


def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


# What stands in the place of a file

SINGLE = {
    "set": open_reader,
    "verification set": open_verification,
    "checkpoint": import_checkpoint,
    "configuration": check_config_file,
    "embeddings": EmbeddingsFile,
    "attributes": Attributes,
    "pairs": parse_pairs,
    "results": choose_result,
    "figures": read_figures,
    "scores": load_results,
    "image": decode_file,
}


@pytest.mark.parametrize("kind", ["FIFO", "device", "socket"])
@pytest.mark.parametrize("use", SINGLE)
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, use, kind):
    path = tmp_path / "x"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)
        socket.socket(socket.AF_UNIX).bind("x")
    assert str(path) in refusal(SINGLE[use], path)


@pytest.mark.parametrize("name", ["train.rec", "x.parquet", "x.arrow", "data.mdb", "x.tar", "a/1.jpg"])
def test_a_fifo_in_a_folder_is_no_file(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    assert str(tmp_path) in refusal(open_reader, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_fifo_in_a_model_s_folder(tmp_path, name):
    Embedder.create(ModelConfig("small", 8)).save(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    os.mkfifo(tmp_path / "model" / name)
    assert name in refusal(Embedder.load, tmp_path / "model")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "progress.json"])
def test_a_fifo_in_a_run_s_folder_is_not_waited_for(tmp_path, name):
    (tmp_path / "config.yaml").write_text("train:\n  epochs: 2\n")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    kind, answer = outcome(read_status, str(tmp_path))
    assert kind in ("refused", "returned"), answer


# Archives


def deflated(path: Path, sizes: dict[str, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, size in sizes.items():
            archive.writestr(name, bytes(size))
    return path


def test_images_of_a_zip_shrink_as_images_do(tmp_path):
    path = deflated(tmp_path / "x.zip", {"a/1.png": 300_000_000, "b/1.png": 100})
    assert "claims 300,000,000 bytes, packed into" in refusal(read_first, path, memory=SMALL)


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    path = deflated(tmp_path / "x.zip", {"a/1.png": 300_000_000, "b/1.png": 100})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert "checksum is wrong" in refusal(read_first, path, memory=SMALL)


def test_files_of_a_zip_that_overlap(tmp_path):
    """One kernel, named by every entry of the directory."""
    kernel, checksum = zlib.compress(bytes(1 << 20), 9)[2:-4], zlib.crc32(bytes(1 << 20))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, checksum, len(kernel), 1 << 20, 0, 0)
    directory = b""
    for number in range(20_000):
        name = f"p{number % 50}/{number}.png".encode()
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, checksum, len(kernel), 1 << 20,
            len(name), 0, 0, 0, 0, 0, 0,
        ) + name  # fmt: skip
    start = len(local) + len(kernel)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 20_000, 20_000, len(directory), start, 0)
    path = tmp_path / "x.zip"
    path.write_bytes(local + kernel + directory + end)
    assert "overlap; pack it again" in refusal(open_reader, path, memory=SMALL)


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    header = bytearray(512)
    header[: len(name)] = name
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[156:157], header[257:263], header[148:156] = kind, b"ustar\0", b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    "content",
    [
        tar_header(b"a/1.jpg", 1 << 60),
        tar_header(b"x", 1 << 60, b"x"),
        tar_header(b"a/1.jpg", 1 << 87),
        tar_header(b"x", 30, b"x") + b"30 size=9999999999999999999\n".ljust(512, b"\0"),
    ],
)
def test_tar_files_that_claim_more_than_there_is(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content + bytes(1024))
    assert str(tmp_path / "x.tar") in refusal(open_reader, tmp_path / "x.tar", memory=SMALL)


def test_a_sparse_file_in_a_tar_is_no_image(tmp_path):
    path = tmp_path / "x.tar"
    size = 4 << 30
    with path.open("wb") as file:
        for name in (b"a/1.jpg", b"b/1.jpg"):
            file.write(tar_header(name, size))
            file.seek(size, os.SEEK_CUR)
        file.write(bytes(1024))
    assert "claims 4,294,967,296 bytes" in refusal(read_first, path, memory=SMALL)


def shard(path: Path, *files: tuple[bytes, bytes]) -> Path:
    blocks = [tar_header(name, len(data)) + data + bytes(-len(data) % 512) for name, data in files]
    path.write_bytes(b"".join(blocks) + bytes(1024))
    return path


@pytest.mark.parametrize("label", [b"4000000000", b"9" * 5000, b"-1", b"16777216"])
def test_shards_with_impossible_classes(tmp_path, label):
    path = shard(tmp_path / "x.tar", (b"1.jpg", jpeg()), (b"1.cls", label))
    assert "x.tar" in refusal(open_reader, path, memory=SMALL)


def test_json_of_a_shard_is_not_believed(tmp_path):
    for about in (b"[" * 60_000, b'{"num_classes": 4000000000, "identity": "a", "key": "k"}'):
        path = shard(
            tmp_path / "x.tar",
            (b"1.jpg", jpeg()),
            (b"1.cls", b"0"),
            (b"1.json", about),
            (b"2.jpg", jpeg()),
            (b"2.cls", b"1"),
        )
        kind, _ = outcome(read_first, path, memory=SMALL)
        assert kind == "returned"


# numpy and MATLAB


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


NPY = {
    "a shape of petabytes": npy("<f4", "(1000000000, 1000000)"),
    "a shape beyond 64 bits": npy("<f4", f"({1 << 63}, {1 << 63})"),
    "a side hidden by 0": npy("<f4", "(1000000000000, 0)"),
    "elements without bytes": npy("|S0", "(1000000000000,)"),
    "texts without bytes": npy("<U0", "(1000000000000,)"),
    "negative sides": npy("<f4", "(-4, -4)"),
    "objects": npy("|O", "(1,)", b"cos\nsystem\n(Vtrue\ntR."),
    "a header of brackets": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000,
    "a header of operators": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"-" * 9000,
    "a long header": b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 30) + b" " * 1000,
    "many sides": npy("<f4", "(" + "1," * 2000 + ")"),
    "no version": b"\x93NUMPY\x09\0",
}


@pytest.mark.parametrize("content", NPY.values(), ids=NPY)
def test_arrays_that_claim_more_than_there_is(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("embeddings.npy", content)
        archive.writestr("keys.npy", content)
    assert "x.npz is not an npz of arrays" in refusal(EmbeddingsFile, tmp_path / "x.npz", memory=SMALL)
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "issame.txt").write_text("1\n")
    assert "x.npy" in refusal(open_verification, tmp_path, memory=SMALL)


def test_an_npz_of_zeros(tmp_path):
    """400 kB that unpack to 400 MB."""
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("embeddings.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy("<f4", "(200000, 512)"))
        for _ in range(100):
            file.write(bytes(200_000 * 2048 // 100))
    assert path.stat().st_size < 500_000
    assert "claims 409,600,128 bytes, packed into" in refusal(EmbeddingsFile, path, memory=SMALL)


def test_arrays_that_shrink_are_read(tmp_path):
    """Names and flags do, by more than a factor of 100."""
    keys = np.array([f"{i:07}" for i in range(3000)], "<U400")
    np.savez_compressed(tmp_path / "x.npz", embeddings=np.zeros((3000, 16), np.float32), keys=keys)
    kind, _ = outcome(EmbeddingsFile, tmp_path / "x.npz")
    assert kind == "returned"


def matlab(*elements: bytes) -> bytes:
    return bytes(124) + b"\x00\x01IM" + b"".join(elements)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + (b"" if kind == 15 else bytes(-len(content) % 8))


def packed_zeros(size: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def nested(levels: int, content: bytes) -> bytes:
    for _ in range(levels):
        content = element(15, zlib.compress(content, 9))
    return content


def cell_array(name: bytes, cells: bytes, rows: int) -> bytes:
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", rows, 1)) + element(1, name)
    return element(14, head + cells)


MATLAB = {
    "zeros": lambda: element(15, packed_zeros(400 << 20)),
    "nested": lambda: nested(2, element(15, packed_zeros(400 << 20))),
    "nested 500 times": lambda: nested(500, bytes(100)),
    "many": lambda: element(15, zlib.compress(cell_array(b"other", b"", 0))) * 100_000,
    "a large variable": lambda: element(15, zlib.compress(cell_array(b"probe_set", bytes(50_000_000), 1), 1)),
    "many rows": lambda: cell_array(b"probe_set", element(14, b"") * 10, 2_000_000_000),
    "claims": lambda: struct.pack("<II", 14, 0xFFFFFFFF),
}


@pytest.mark.parametrize("bomb", MATLAB)
def test_matlab_files_that_are_bombs(tmp_path, bomb):
    (tmp_path / "x.mat").write_bytes(matlab(MATLAB[bomb]()))
    assert "x.mat" in refusal(read_names, tmp_path / "x.mat", "probe_set", memory=SMALL)


# Text


@pytest.mark.parametrize("use", ["set", "verification set", "attributes", "pairs"])
@pytest.mark.parametrize(
    "text",
    [
        b"a/1.jpg 0 " + b"1" * 60_000_000,
        b"a/1.jpg b/1.jpg 1\n" + b"x" * 60_000_000,
        b'name,sex\na.jpg,"' + b"x\n" * 3_000_000,
        b"1\t" + b"9" * 5000 + b"\n",
        b"1" * 20_000 + b"x",
    ],
    ids=["digits", "letters", "quotes", "a number", "digits and a letter"],
)
def test_texts_without_line_ends(tmp_path, use, text):
    (tmp_path / "x.txt").write_bytes(text)
    assert "x.txt" in refusal(SINGLE[use], tmp_path / "x.txt", memory=SMALL)


def test_numbers_of_a_list_are_read_in_linear_time(tmp_path):
    """Digits, and a letter at the end: once for each line."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg())
    (tmp_path / "x.txt").write_text("".join(f"a/1.jpg {'1' * 60_000}x {label}\n" for label in range(30)))
    kind, answer = outcome(open_reader, tmp_path / "x.txt", memory=SMALL, seconds=5)
    assert kind in ("refused", "returned"), answer


def test_infinite_labels_of_a_list(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg())
    (tmp_path / "x.txt").write_text("a/1.jpg 1e999\na/1.jpg 1\n")
    assert "is not a whole number" in refusal(open_reader, tmp_path / "x.txt")


def test_a_long_name_among_landmarks(tmp_path):
    """Names once took memory by the longest of them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg())
    (tmp_path / "train_list.txt").write_text("a/1.jpg 0\na/1.jpg 1\n")
    points = "".join(f"b/{i}.jpg,1,2,3,4,5,6,7,8,9,10\n" for i in range(100_000))
    (tmp_path / "loose_landmark_train.csv").write_text(f"{'x' * 60_000}.jpg,1,2,3,4,5,6,7,8,9,10\n" + points)
    assert "has no points for a/1.jpg" in refusal(open_reader, tmp_path / "train_list.txt", memory=SMALL)


@pytest.mark.parametrize("text", ["1" * 5000 + ",2", "1,2,x", "1,,\x00", "99999999999999999999,1"])
def test_damaged_index_files(tmp_path, text):
    for person in "ab":
        (tmp_path / "imgs" / person).mkdir(parents=True)
        (tmp_path / "imgs" / person / "1.jpg").write_bytes(jpeg())
    (tmp_path / "index.txt").write_text(text)
    assert "index.txt" in refusal(open_reader, tmp_path / "index.txt", memory=SMALL)


JSON = {
    "nested": "[" * 1_000_000,
    "lists": "[" + "[]," * 6_000_000 + "[]]",
    "a number": '{"results": ' + "9" * 100_000 + "}",
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
@pytest.mark.parametrize("use", [choose_result, read_figures])
def test_json_that_takes_memory(tmp_path, use, text):
    (tmp_path / "x.json").write_text(text)
    assert "x.json" in refusal(use, tmp_path / "x.json", memory=SMALL)


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_descriptions_of_models_that_take_memory(tmp_path, text):
    Embedder.create(ModelConfig("small", 8)).save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(text)
    assert "config.json" in refusal(Embedder.load, tmp_path / "model", memory=SMALL)


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", [ALIASES, "&a [*a]", "[" * 100_000, "a: 1\n" * 1_000_000, "? " * 50_000, "a: " + "1:" * 60_000]
)
def test_configurations_that_are_bombs(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert "config.yaml" in refusal(check_config_file, tmp_path / "config.yaml", memory=SMALL)
    kind, answer = outcome(read_status, str(tmp_path), memory=SMALL)
    assert kind == "refused", answer


@pytest.mark.parametrize("name", ["metrics.csv", "progress.json"])
@pytest.mark.parametrize("text", ["step,loss\n1,x\n", "[" * 100_000, "step,loss\n" + "1" * 10_000_000, "\0" * 100])
def test_files_of_a_run_that_are_damaged(tmp_path, name, text):
    (tmp_path / "config.yaml").write_text("train:\n  epochs: 2\n")
    (tmp_path / name).write_text(text)
    kind, answer = outcome(read_status, str(tmp_path), memory=SMALL)
    assert kind in ("refused", "returned"), answer


# RecordIO and LMDB


def recordio(folder: Path, records: list[bytes]) -> Path:
    (folder / "train.rec").write_bytes(b"".join(map(frame, records)))
    return folder / "train.rec"


@pytest.mark.parametrize("text", [b"99999999999999999999,1,1", b"4000000000,112,112", b"0,1,1", b"9" * 100])
def test_impossible_numbers_of_classes(tmp_path, text):
    path = recordio(tmp_path, [pack([0.0], 0, jpeg()), pack([1.0], 1, jpeg())])
    (tmp_path / "property").write_bytes(text)
    assert "should start with the number of classes" in refusal(open_reader, path, memory=SMALL)


def test_an_index_without_line_ends(tmp_path):
    path = recordio(tmp_path, [pack([0.0], 0, jpeg()), pack([1.0], 1, jpeg())])
    (tmp_path / "train.idx").write_bytes(b"1" * 60_000_000)
    assert "train.idx" in refusal(open_reader, path, memory=SMALL)


@pytest.mark.parametrize("word", [0xFFFFFFFF, 1 << 29 | 4, 0x1FFFFFFF])
def test_records_that_claim_more_than_there_is(tmp_path, word):
    (tmp_path / "train.rec").write_bytes(struct.pack("<II", 0xCED7230A, word) + bytes(100))
    assert "train.rec" in refusal(open_reader, tmp_path / "train.rec", memory=SMALL)


def test_a_record_of_many_parts(tmp_path):
    parts = struct.pack("<II", 0xCED7230A, 1 << 29) + struct.pack("<II", 0xCED7230A, 2 << 29) * 5_000_000
    (tmp_path / "train.rec").write_bytes(parts + struct.pack("<II", 0xCED7230A, 3 << 29))
    (tmp_path / "train.idx").write_text("0\t0\n1\t0\n")
    assert "train.rec" in refusal(read_first, tmp_path / "train.rec", memory=SMALL)


def lmdb_set(folder: Path, items: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, value)
    return folder


def bytes32(content: bytes) -> bytes:
    return b"\xc6" + struct.pack(">I", len(content)) + content


LMDB = {
    "4 billion images": {b"__len__": msgpack.dumps(1 << 32), b"4294967295": msgpack.dumps((b"x", 0))},
    "lists": {b"__len__": b"\1", b"0": b"\x92" + b"\x91" * 5_000_000},
    "dictionaries": {b"__len__": b"\1", b"0": b"\x92\xdd" + struct.pack(">I", 9_000_000) + b"\x80" * 9_000_000},
    "a length of dictionaries": {b"__len__": b"\xdd" + struct.pack(">I", 9_000_000) + b"\x80" * 9_000_000},
    "a label of dictionaries": {
        b"__len__": b"\1", b"0": b"\x92\xa1x\xdd" + struct.pack(">I", 9_000_000) + b"\x80" * 9_000_000
    },
    "a label too large": {b"__len__": b"\2", b"0": msgpack.dumps((b"x", 1 << 63)), b"1": msgpack.dumps((b"x", 0))},
    "claims": {b"__len__": b"\1", b"0": b"\x92\xc6\xff\xff\xff\xffx\0"},
    "a large image": {b"__len__": b"\1", b"0": b"\x92" + bytes32(bytes(70_000_000)) + b"\0"},
}  # fmt: skip


@pytest.mark.parametrize("bomb", LMDB)
def test_lmdb_files_that_are_bombs(tmp_path, bomb):
    path = lmdb_set(tmp_path, LMDB[bomb])
    assert "data.mdb" in refusal(read_first, path, memory=SMALL)


# HDF5


def hdf5(path: Path, fill) -> Path:
    with h5py.File(path, "w") as file:
        for person in "ab":
            file[f"{person}/1.jpg"] = np.frombuffer(jpeg(), np.uint8)
        fill(file)
    return path


def chunk_bomb(file, levels: int = 1, size: int = 200_000_000) -> None:
    """A chunk that is said to have 1,000 bytes and unpacks to many more."""
    content = bytes(size)
    for _ in range(levels):
        content = zlib.compress(content, 9)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1000,))
    for _ in range(levels):
        properties.set_deflate(9)
    group = file["a"].id
    space = h5py.h5s.create_simple((1000,))
    data_set = h5py.h5d.create(group, b"0.jpg", h5py.h5t.NATIVE_UINT8, space, properties)
    data_set.write_direct_chunk((0,), content)


def deep_groups(file) -> None:
    group = file["a"]
    for _ in range(200):
        group = group.create_group("a")
    group["1.jpg"] = np.zeros(4, np.uint8)


HDF5 = {
    "a chunk of zeros": chunk_bomb,
    "a chunk packed twice": lambda file: chunk_bomb(file, 2),
    "terabytes of gzip": lambda file: file["a"].create_dataset(
        "0.jpg", (1 << 40,), np.uint8, chunks=(1 << 20,), compression="gzip"
    ),
    "never written": lambda file: file["a"].create_dataset("0.jpg", (60_000_000,), np.uint8),
    "zeros of gzip": lambda file: file["a"].create_dataset(
        "0.jpg", data=np.zeros(60_000_000, np.uint8), chunks=(1 << 20,), compression="gzip"
    ),
    "a large chunk": lambda file: file["a"].create_dataset(
        "0.jpg", (4,), np.uint8, maxshape=(None,), chunks=(1 << 30,), compression="gzip"
    ),
    "many chunks": lambda file: file["a"].create_dataset("0.jpg", (1 << 20,), np.uint8, chunks=(1,)),
    "many texts": lambda file: file["a"].create_dataset("0.jpg", (1000,), h5py.string_dtype()),
    "groups in groups": deep_groups,
    "long names": lambda file: file["a"].create_group("x" * 40_000).create_dataset("1.jpg", data=np.zeros(1, np.uint8)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", HDF5)
def test_hdf5_files_that_are_bombs(tmp_path, bomb):
    path = hdf5(tmp_path / "x.h5", HDF5[bomb])
    assert "x.h5" in refusal(read_first, path, memory=SMALL)


def test_groups_in_a_circle_are_no_trap(tmp_path):
    def circle(file) -> None:
        file["a/a"] = file["a"]
        file["a/b"] = file["b"]
        file["b/a"] = file["a"]

    kind, image = outcome(read_first, hdf5(tmp_path / "x.h5", circle))
    assert (kind, image) == ("returned", jpeg())


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}]
)
def test_packed_images_are_read(tmp_path, options):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    path = hdf5(tmp_path / "x.h5", lambda file: file["a"].create_dataset("0.png", data=pixels, **options))
    kind, image = outcome(read_first, path)
    assert kind == "returned", image
    np.testing.assert_array_equal(image, pixels)


# Parquet and Arrow


def table(images: pa.Array, labels: pa.Array) -> pa.Table:
    return pa.table({"image": images, "label": labels})


def of_one(rows: int, value: bytes | str) -> pa.Array:
    """One value in a dictionary, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def write(path: Path, content: pa.Table, **options) -> Path:
    parquet.write_table(content, path, **options)
    return path


def labels(rows: int) -> pa.Array:
    return pa.array(np.arange(rows) % 7)


PARQUET = {
    "a dictionary of one image": lambda path: write(
        path, table(of_one(20_000, bytes(900_000)), labels(20_000)), store_schema=False
    ),
    "a page of zeros": lambda path: write(
        path, table(pa.array([bytes(270_000_000), b"x"], pa.binary()), labels(2)), compression="zstd",
        use_dictionary=False,
    ),
    "labels of one text": lambda path: write(
        path, table(of_one(20_000, b"x"), of_one(20_000, "y" * 900_000)), store_schema=False
    ),
    "texts that repeat": lambda path: write(
        path, table(pa.array([b"z" * 900_000] * 320, pa.binary()), labels(320)), use_dictionary=False,
        column_encoding={"image": "DELTA_BYTE_ARRAY", "label": "PLAIN"}, compression="zstd",
    ),
    "lists": lambda path: write(path, table(pa.array([[b"x"]] * 9), labels(9))),
    "fixed lengths": lambda path: write(path, table(pa.array([None] * 9, pa.binary(1_000_000)), labels(9))),
    "rows without bytes": lambda path: write(path, table(pa.nulls(5_000_000), pa.nulls(5_000_000))),
}  # fmt: skip
SLOW = ("a page of zeros", "labels of one text", "texts that repeat")


@pytest.mark.parametrize(
    "bomb", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PARQUET]
)
def test_parquet_files_that_are_bombs(tmp_path, bomb):
    path = PARQUET[bomb](tmp_path / "x.parquet")
    assert "x.parquet" in refusal(read_first, path, memory=600 << 20)


def test_a_page_that_says_it_is_large(tmp_path):
    """In its own header, which the footer knows nothing of."""
    path = write(
        tmp_path / "x.parquet", table(pa.array([b"a" * 9, b"b" * 9], pa.binary()), labels(2)), compression="zstd"
    )
    data = bytearray(path.read_bytes())
    about = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    at = about.dictionary_page_offset + 3  # behind the kind of the page and the field
    assert data[at - 1] == 0x15
    data[at] = data[at] | 0x80
    data[at + 1 : at + 1] = b"\xff\xff\xff\x0f"
    path.write_bytes(data)
    assert "x.parquet" in refusal(read_first, path, memory=SMALL)


def arrow(path: Path, content: pa.Table, **options) -> Path:
    with pa.ipc.new_stream(path, content.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(content)
    return path


def arrow_file(path: Path, content: pa.Table, **options) -> Path:
    with pa.ipc.new_file(path, content.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(content)
    return path


@pytest.mark.parametrize("kind", [arrow, arrow_file])
def test_compressed_batches_are_refused(tmp_path, kind):
    images = pa.array([bytes(1_000_000), b"x"], pa.binary())
    path = kind(tmp_path / "x.arrow", table(images, labels(2)), compression="zstd")
    assert "its batches are compressed" in refusal(read_first, path, memory=SMALL)
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), images)
    path = kind(tmp_path / "y.arrow", table(dictionary, labels(2)), compression="lz4")
    assert "its batches are compressed" in refusal(read_first, path, memory=SMALL)


@pytest.mark.parametrize("kind", [arrow, arrow_file])
def test_views_and_rows_without_bytes_are_refused(tmp_path, kind):
    views = pa.array([b"x" * 1000] * 9, pa.binary_view())
    assert "x.arrow" in refusal(read_first, kind(tmp_path / "x.arrow", table(views, labels(9))), memory=SMALL)
    nothing = table(pa.nulls(1_000_000_000), pa.nulls(1_000_000_000))
    assert "claims 1,000,000,000 rows" in refusal(read_first, kind(tmp_path / "x.arrow", nothing), memory=SMALL)


@pytest.mark.parametrize("kind", [arrow, arrow_file, write])
def test_tables_of_all_allowed_types_are_read(tmp_path, kind):
    image = pa.array([jpeg()] * 8, pa.large_binary())
    names = pa.array(["x", "y"] * 4).dictionary_encode()
    kind_, found = outcome(read_first, kind(tmp_path / "x.t", table(image, names)))
    assert (kind_, found) == ("returned", jpeg())


# Images


def png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * depth // 8)
    content = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", np.zeros((2000, 2000, 3), np.uint8), options)[1].tobytes()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def hidden_scans(scans: int) -> bytes:
    """The same with the marker TEM before each: it has no length, so the scan's first bytes are none."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", np.zeros((2000, 2000, 3), np.uint8), options)[1].tobytes()
    last = data.rindex(b"\xff\xda")
    return data[:last] + (b"\xff\x01" + data[last:-2]) * scans + data[-2:]


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 9 x 9 pixels with these chunks, (kind, content), before its pixels."""
    whole = png(9, 9)
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return whole[:33] + b"".join(packed) + whole[33:]


def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def exif(data: bytes) -> bytes:
    about = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(about) + 2) + about + data[2:]


def bmp(width: int, height: int, size: int = 40) -> bytes:
    return b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, size, width, height, 1, 24, 0) + bytes(1000)


IMAGES = {
    "PNG of 20,000 pixels": lambda: png(20_000, 20_000, 1, 0),
    "PNG that claims": lambda: png(1, 1).replace(struct.pack(">II", 1, 1), struct.pack(">II", 1 << 31, 1 << 31), 1),
    "JPEG of many scans": lambda: many_scans(3000),
    "turned JPEG of many scans": lambda: exif(many_scans(3000)),
    "JPEG of scans behind TEM": lambda: hidden_scans(3000),
    "PNG of more than its pixels": lambda: png_with((b"IDAT", zeros(2000))),
    "PNG of many chunks": lambda: png_with(*[(b"tEXt", b"")] * 100_000),
    "BMP that claims": lambda: bmp(1 << 30, 1 << 30),
    "BMP that claims to be old": lambda: bmp(0x00010001, 1 << 15, 0x10C),
    "PPM that claims": lambda: b"P6 100000 100000 255\n" + bytes(100),
    "PPM with a long comment": lambda: b"P6 10 1#" + b"x" * 1014 + b"\n0 255\n" + bytes(100),
    "PPM cut within a number": lambda: b"P6 10" + b" " * 1018 + b"10000000 255\n" + bytes(100),
    "PPM of negative sides": lambda: b"P6 -100000 -100000 255\n" + bytes(100),
    "WebP that claims": lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0/" + b"\xff" * 17,
    "WebP of no kind": lambda: b"RIFF\x1e\0\0\0WEBPXXXX\x12\0\0\0" + b"\x10\0" * 9,
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("bomb", IMAGES)
def test_images_that_are_bombs(tmp_path, bomb):
    (tmp_path / "x.jpg").write_bytes(IMAGES[bomb]())
    assert "x.jpg" in refusal(decode_file, tmp_path / "x.jpg", memory=SMALL, seconds=5)


@pytest.mark.parametrize(("kind", "head"), [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")])
def test_texts_in_a_png_are_not_unpacked(tmp_path, kind, head):
    text = zlib.compress(b"a" * 7_000_000)
    (tmp_path / "x.png").write_bytes(png_with(*[(kind, head + text)] * 200, (b"tEXt", b"a\0zTXt")))
    found = outcome(decode_file, tmp_path / "x.png", memory=SMALL, seconds=5)
    assert found == ("returned", (9, 9, 3))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_large_png_is_no_bomb(tmp_path, depth):
    noise = np.random.default_rng(0).integers(0, 1 << depth, (1000, 900, 4), np.uint16 if depth > 8 else np.uint8)
    (tmp_path / "x.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    assert outcome(decode_file, tmp_path / "x.png") == ("returned", (1000, 900, 3))


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"fdAT"])
def test_a_chunk_of_a_png_that_is_longer_than_the_file(tmp_path, kind):
    whole = png(9, 9)
    (tmp_path / "x.png").write_bytes(whole[:33] + b"\xf0\0\0\1" + kind + whole[33:])
    assert "x.png" in (message := refusal(decode_file, tmp_path / "x.png", memory=SMALL))
    assert "it is truncated" in message  # not: too little memory


def test_a_video_behind_a_photograph_is_no_scan(tmp_path):
    """Cameras append one; it holds the bytes of a scan's marker by chance."""
    (tmp_path / "x.jpg").write_bytes(jpeg() + b"\xff\xda\0\1" * 1000)
    kind, shape = outcome(decode_file, tmp_path / "x.jpg")
    assert (kind, shape) == ("returned", (8, 8, 3))


def test_a_file_too_large_for_an_image(tmp_path):
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(1 << 40)
    assert "more than the 67,108,864 that are read" in refusal(decode_file, tmp_path / "x.jpg", memory=SMALL)


# Weights


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 100_000,
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}}).encode(),
        json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "abc"}).encode(),
    ],
    ids=["nested", "a shape", "a shape beyond 64 bits", "overlapping"],
)
def test_safetensors_that_are_bombs(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "x.safetensors" in refusal(import_checkpoint, path, memory=SMALL)


def test_a_packed_verification_set_that_is_a_bomb(tmp_path):
    (tmp_path / "x.xz").write_bytes(lzma.compress(b"\x80\x04" + bytes(200_000_000), preset=0))
    assert "unpacks to more than" in refusal(open_verification, tmp_path / "x.xz", memory=SMALL)


def test_scores_with_a_fold_for_each_pair(tmp_path):
    count = 300_000
    facts = [{"model": "m", "benchmark": "b", "keys": None, "notes": [], "xnorm": None, "fars": [0.1]}]
    arrays = {
        "distances": np.zeros(count), "first": np.arange(count), "second": np.arange(count),
        "same": np.arange(count) % 2 < 1, "subjects": np.zeros(0), "folds": np.arange(count),
        "fold_sizes": np.ones(count, np.int64),
    }  # fmt: skip
    np.savez_compressed(tmp_path / "x.npz", facts=json.dumps(facts), **{f"0.{key}": one for key, one in arrays.items()})
    assert "claims 300,000 folds" in refusal(load_results, tmp_path / "x.npz", memory=SMALL)


def test_the_parts_are_what_they_should_be():
    """The files above are bombs for what they hold, not for being no files of their kind."""
    assert cv2.imdecode(np.frombuffer(png(4, 4, 16, 6), np.uint8), cv2.IMREAD_COLOR).shape == (4, 4, 3)
    assert cv2.imdecode(np.frombuffer(exif(jpeg()), np.uint8), cv2.IMREAD_COLOR).shape == (8, 8, 3)
    array = np.load(io.BytesIO(npy("<f4", "(2, 1)", bytes(8))))
    assert array.shape == (2, 1)
