"""Every file format that marginface opens, as the fuzzer needs it: a small valid file, and how the product reads it.

A `Format` takes a valid file apart into the pieces that carry meaning (`unseal`) and puts them together again with
right checksums (`seal`), so that damage reaches the code behind the checksums and not only the checksums.
"""

import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from marginface.readers import open_reader
from marginface.readers.base import Record
from marginface.readers.verification import open_verification

Pieces = list[bytes]


@dataclass(frozen=True)
class Format:
    """make: writes a small set into a folder and returns the file to damage. use: reads it as the product does."""

    make: Callable[[Path], Path]
    use: Callable[[Path], object]
    unseal: Callable[[bytes], Pieces] | None = None
    seal: Callable[[Pieces], bytes] | None = None


def picture(number: int, suffix: str = ".jpg", size: int = 24) -> bytes:
    """An encoded picture of `size` x `size` pixels."""
    ramp = np.linspace(0, 255, size, dtype=np.float32)
    pixels = np.stack(
        [np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), np.full((size, size), number * 9)], 2
    )
    return bytes(cv2.imencode(suffix, pixels.astype(np.uint8))[1])


def write_people(folder: Path, people: int = 3, images: int = 2, suffix: str = ".png") -> Path:
    for person in range(people):
        (folder / f"person{person}").mkdir(parents=True)
        for number in range(images):
            path = folder / f"person{person}" / f"person{person}_{number + 1:04d}{suffix}"
            path.write_bytes(picture(person * images + number, suffix))
    return folder


def read_set(path: Path) -> None:
    reader = open_reader(path)
    for index in range(len(reader)):
        reader.read([index])
    assert len(reader.labels) == len(reader)
    assert reader.num_classes <= len(reader) + 1_000_000


def read_folder_of(path: Path) -> None:
    read_set(path.parent)


def read_verification(path: Path) -> None:
    stored = open_verification(path)
    assert len(stored.images[:]) == 2 * len(stored.issame)


def decode_picture(path: Path) -> None:
    from marginface.loading.decode import decode

    decode(Record(path.read_bytes(), 0, str(path)))


# checksums


def unzip(data: bytes) -> Pieces:
    """Names and contents, one after the other."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [piece for name in archive.namelist() for piece in (name.encode(), archive.read(name))]


def rezip(pieces: Pieces, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in zip(pieces[::2], pieces[1::2], strict=True):
            archive.writestr(name.decode("latin-1").replace("\0", "0") or "0", content)
    return buffer.getvalue()


TAR_BLOCK = 512


def untar(data: bytes) -> Pieces:
    return [data[at : at + TAR_BLOCK] for at in range(0, len(data), TAR_BLOCK)]


def retar(pieces: Pieces) -> bytes:
    """With the checksum of every block that looks like a header."""
    blocks = []
    for piece in pieces:
        block = bytearray(piece[:TAR_BLOCK].ljust(TAR_BLOCK, b"\0"))
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        blocks.append(bytes(block))
    return b"".join(blocks)


def png_chunks(data: bytes) -> Pieces:
    pieces, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        content = data[at + 8 : at + 8 + length]
        kind = data[at + 4 : at + 8]
        pieces += [kind, zlib.decompress(content) if kind == b"IDAT" else content]
        at += 12 + length
    return pieces


def png_of(pieces: Pieces) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in zip(pieces[::2], pieces[1::2], strict=True):
        kind = kind[:4].ljust(4, b"a")
        content = zlib.compress(content) if kind == b"IDAT" else content
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


def matlab_elements(data: bytes) -> Pieces:
    pieces, at = [data[:128]], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + size]
        pieces.append(zlib.decompress(body) if kind == 15 else body)
        at += 8 + size
    return pieces


def matlab_of(pieces: Pieces) -> bytes:
    data = pieces[0]
    for body in map(zlib.compress, pieces[1:]):
        data += struct.pack("<II", 15, len(body)) + body
    return data


# data sets


def recordio(folder: Path, victim: str) -> Path:
    from marginface.convert import convert

    convert(str(write_people(folder / "people")), folder / "set", "recordio", workers=1)
    return folder / "set" / victim


def shards(folder: Path) -> Path:
    from marginface.convert import convert

    convert(str(write_people(folder / "people")), folder / "set", "webdataset", workers=1)
    return folder / "set" / "train-000000.tar"


def zipped(folder: Path) -> Path:
    path = folder / "people.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(write_people(folder / "people").rglob("*.png")):
            archive.write(file, str(file.relative_to(folder)))
    return path


def tarred(folder: Path, layout: int) -> Path:
    path, long = folder / "people.tar", "é" * 60  # a name that needs the extensions of PAX and GNU
    with tarfile.open(path, "w", format=layout) as archive:
        archive.add(write_people(folder / "people"), long if layout != tarfile.USTAR_FORMAT else "people")
    return path


def table(folder: Path, suffix: str) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.table({"image": [picture(n) for n in range(6)], "label": [0, 1, 2] * 2})
    path = folder / f"faces.{suffix}"
    if suffix == "parquet":
        parquet.write_table(rows, path, row_group_size=3)
    else:
        with pa.ipc.new_stream(str(path), rows.schema) as writer:
            writer.write_table(rows, max_chunksize=3)
    return path


def hdf5(folder: Path, latest: bool) -> Path:
    import h5py

    path = folder / "faces.h5"
    with h5py.File(path, "w", libver="latest" if latest else "earliest") as file:
        for person in range(3):
            for number in range(2):
                file.create_dataset(f"{person}/{number}.png", data=np.frombuffer(picture(person), np.uint8))
    return path


def lmdb(folder: Path) -> Path:
    import lmdb as library
    import msgpack

    with (
        library.open(str(folder / "set.lmdb"), map_size=1 << 24, subdir=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(60):
            transaction.put(b"%d" % number, msgpack.packb((picture(number), number % 5), use_bin_type=True))
        transaction.put(b"__keys__", msgpack.packb([b"%d" % number for number in range(60)]))
        transaction.put(b"__len__", msgpack.packb(60))
        transaction.put(b"__classnum__", msgpack.packb(5))
    return folder / "set.lmdb"


def list_of_images(folder: Path, dialect: str) -> Path:
    names = [str(path.relative_to(folder)) for path in sorted(write_people(folder / "people").rglob("*.png"))]
    path = folder / "list.txt"
    path.write_text("\n".join(dialect.format(name=name, label=i // 2) for i, name in enumerate(names)) + "\n")
    return path


def landmarks(folder: Path) -> Path:
    names = [path.name for path in sorted(write_people(folder / "people").rglob("*.png"))]
    rows = ["NAME_ID," + ",".join(f"P{i}X,P{i}Y" for i in range(1, 6))]
    rows += [f'"people/{name[:7]}/{name[:-4]}",' + ",".join(f"{v}.5" for v in range(10, 20)) for name in names]
    (folder / "list.txt").write_text("\n".join(f"people/{name[:7]}/{name}" for name in names) + "\n")
    (folder / "loose_landmark_all.csv").write_text("\n".join(rows) + "\n")
    return folder / "loose_landmark_all.csv"


def subset(folder: Path) -> Path:
    write_people(folder / "imgs", people=12, images=6)
    (folder / "index.txt").write_text(",".join(map(str, range(70))))
    return folder / "index.txt"


def sidecar(folder: Path) -> Path:
    path = lmdb(folder)
    read_set(path)
    return path.with_suffix(".labels.npy")


# benchmarks


def stored_bin(folder: Path, protocol: int) -> Path:
    images = [picture(n) if n % 2 else np.frombuffer(picture(n), np.uint8) for n in range(4)]
    path = folder / "set.bin"
    path.write_bytes(pickle.dumps((images, [True, np.False_]), protocol))
    return path


def stored_xz(folder: Path) -> Path:
    path = folder / "set.xz"
    path.write_bytes(lzma.compress(stored_bin(folder, 4).read_bytes()))
    return path


def memfile(folder: Path, victim: str) -> Path:
    stored = folder / "agedb_30" / "memfile"
    stored.mkdir(parents=True)
    images = np.linspace(-1, 1, 4 * 3 * 8 * 8, dtype="<f4").reshape(4, 3, 8, 8)
    (stored / "mem_file.dat").write_bytes(images.tobytes())
    (stored / "mem_file.dat.conf").write_text(json.dumps({"shape": images.shape, "dtype": "float32"}))
    np.save(folder / "agedb_30_list.npy", np.array([True, False]))
    return folder / victim


def read_memfile(path: Path) -> None:
    folder = path.parent if path.suffix == ".npy" else path.parent.parent.parent
    stored = open_verification(folder / "agedb_30")
    assert len(stored.images[:]) == 2 * len(stored.issame)


def pair_list(folder: Path) -> Path:
    names = [str(path.relative_to(folder)) for path in sorted(write_people(folder / "people").rglob("*.png"))]
    path = folder / "pairs.txt"
    path.write_text("\n".join(f"{i % 2} {names[i]} {names[-1 - i]}" for i in range(6)) + "\n")
    return path


def lfw_pairs(folder: Path) -> Path:
    write_people(folder / "people")
    rows = ["2\t1", "person0\t1\t2", "person0\t1\tperson1\t1", "person1\t1\t2", "person2\t1\tperson1\t2"]
    (folder / "pairs.txt").write_text("\n".join(rows) + "\n")
    return folder / "pairs.txt"


def read_lfw_pairs(path: Path) -> None:
    from marginface.protocols.pairs import read_pairs

    read_pairs(path, path.parent / "people")


def matlab(folder: Path, compressed: bool) -> Path:
    from scipy.io import savemat

    rows = np.empty((3, 2), object)
    rows[:, 0] = ["1_1.jpg", "2_1.jpg", "9_1.jpg"]
    rows[:, 1] = [1.0, 2.0, 9.0]
    savemat(folder / "names.mat", {"probe_set": rows}, do_compression=compressed)
    return folder / "names.mat"


def read_matlab(path: Path) -> None:
    from marginface.protocols.matlab import read_names

    read_names(path, "probe_set")


def ijb(folder: Path, victim: str) -> Path:
    import ijb_set

    return ijb_set.write_ijb(folder) / "IJBC" / "meta" / f"ijbc_{victim}"


def read_ijb(path: Path) -> None:
    from marginface.protocols.ijb_meta import read_ijb_meta

    read_ijb_meta(path.parent.parent, "IJBC", cache=path.parent.parent / "cache")


def embeddings(folder: Path, compressed: bool) -> Path:
    rng = np.random.default_rng(0)
    keys = np.array([f"person/{number}.jpg" for number in range(6)])
    save = np.savez_compressed if compressed else np.savez
    save(folder / "e.npz", embeddings=rng.normal(size=(6, 4)), flipped=rng.normal(size=(6, 4)), keys=keys)
    return folder / "e.npz"


def read_embeddings(path: Path) -> None:
    from marginface.evaluate.embeddings_file import EmbeddingsFile
    from marginface.evaluate.images import Images

    EmbeddingsFile(path).of(Images("set", ("person/3.jpg",), lambda positions: []))


def scores(folder: Path) -> Path:
    from marginface.metrics.result import Trials, verify_distances
    from marginface.protocols.saved import save_results

    rng, same = np.random.default_rng(0), np.tile([True, False], 20)
    trials = Trials("set", np.arange(40), np.arange(40), same, np.split(np.arange(40), 10))
    save_results(folder / "scores.npz", [verify_distances(rng.random(40) + ~same, trials, replicates=0)])
    return folder / "scores.npz"


def read_scores(path: Path) -> None:
    from marginface.protocols.saved import load_results

    load_results(path, replicates=0)


def attributes(folder: Path) -> Path:
    (folder / "people.csv").write_text("name,sex,age\n" + "".join(f"person{n},{'fm'[n % 2]},{n}\n" for n in range(9)))
    return folder / "people.csv"


def read_attributes(path: Path) -> None:
    from marginface.evaluate.attributes import Attributes

    keys = [f"person{number}/1.jpg" for number in range(9)]
    Attributes(path).groups("sex", keys)
    Attributes(path).numbers("age", keys)


# models


def model(folder: Path, victim: str) -> Path:
    from marginface.embedder import Embedder, ModelConfig

    Embedder.create(ModelConfig("small", 8)).save(folder / "model")
    return folder / "model" / victim


def read_model(path: Path) -> None:
    from marginface.weights.opening import load

    load(str(path.parent))


def checkpoint(folder: Path, zipped: bool) -> Path:
    import torch

    state = {"epoch": 3, "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2).half()}}
    torch.save(state, folder / "net.pth", _use_new_zipfile_serialization=zipped)
    return folder / "net.pth"


def safetensors_file(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4).half()}, folder / "net.safetensors")
    return folder / "net.safetensors"


def read_checkpoint(path: Path) -> None:
    from marginface.weights import container

    container.read(path)


def image(suffix: str, folder: Path) -> Path:
    (folder / f"face{suffix}").write_bytes(picture(3, suffix))
    return folder / f"face{suffix}"


DEFLATED = partial(rezip, compression=zipfile.ZIP_DEFLATED)
FORMATS: dict[str, Format] = {
    **{
        f"image{suffix}": Format(partial(image, suffix), decode_picture) for suffix in (".jpg", ".bmp", ".webp", ".ppm")
    },
    "image.png": Format(partial(image, ".png"), decode_picture, png_chunks, png_of),
    **{
        f"recordio {victim}": Format(partial(recordio, victim=victim), read_folder_of)
        for victim in ("train.rec", "train.idx", "property", "train.lst")
    },
    "labels beside a set": Format(sidecar, lambda path: read_set(path.parent / "set.lmdb")),
    "shards": Format(shards, read_set, untar, retar),
    "zip": Format(zipped, read_set, unzip, DEFLATED),
    **{
        f"tar {name}": Format(partial(tarred, layout=layout), read_set, untar, retar)
        for name, layout in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT))
    },
    "parquet": Format(partial(table, suffix="parquet"), read_set),
    "arrow": Format(partial(table, suffix="arrow"), read_set),
    "hdf5 1.8": Format(partial(hdf5, latest=False), read_set),
    "hdf5 latest": Format(partial(hdf5, latest=True), read_set),
    "lmdb": Format(lmdb, read_set),
    "list of names": Format(partial(list_of_images, dialect="{name}"), read_set),
    "list with labels": Format(partial(list_of_images, dialect="{name}\t{label}"), read_set),
    "landmarks": Format(landmarks, lambda path: read_set(path.parent / "list.txt")),
    "subset": Format(subset, read_set),
    **{f"bin protocol {n}": Format(partial(stored_bin, protocol=n), read_verification) for n in (0, 2, 3, 4, 5)},
    "bin.xz": Format(
        stored_xz, read_verification, lambda data: [lzma.decompress(data)], lambda pieces: lzma.compress(pieces[0])
    ),
    **{
        f"memfile {victim}": Format(partial(memfile, victim=victim), read_memfile)
        for victim in ("agedb_30_list.npy", "agedb_30/memfile/mem_file.dat.conf")
    },
    "list of pairs": Format(pair_list, read_verification),
    "pairs.txt": Format(lfw_pairs, read_lfw_pairs),
    "matlab": Format(partial(matlab, compressed=False), read_matlab),
    "matlab compressed": Format(partial(matlab, compressed=True), read_matlab, matlab_elements, matlab_of),
    **{
        f"ijb {victim}": Format(partial(ijb, victim=victim), read_ijb)
        for victim in ("face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt", "1N_probe_mixed.csv")
    },
    "embeddings": Format(partial(embeddings, compressed=False), read_embeddings, unzip, rezip),
    "embeddings compressed": Format(partial(embeddings, compressed=True), read_embeddings, unzip, DEFLATED),
    "scores": Format(scores, read_scores, unzip, DEFLATED),
    "attributes": Format(attributes, read_attributes),
    "model config": Format(partial(model, victim="config.json"), read_model),
    "model weights": Format(partial(model, victim="model.safetensors"), read_model),
    "pth": Format(partial(checkpoint, zipped=True), read_checkpoint, unzip, rezip),
    "pth before 1.6": Format(partial(checkpoint, zipped=False), read_checkpoint),
    "safetensors": Format(safetensors_file, read_checkpoint),
}
