"""Archives must look like the folder they were made of, whichever tool and format made them."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.readers import open_reader
from marginface.readers.archive import ArchiveReader
from marginface.readers.folder import FolderReader

LONG = "a name that is much longer than the hundred bytes which the old header of a tar archive has for it " * 2
FILES = ["10/b.jpg", "10/a.PNG", "9/x.webp", "9/v2/z.jpeg", "9/v1/y.bmp", "9/notes.txt", "9/.a.jpg", f"9/{LONG}é.jpg"]


def content(name: str) -> bytes:
    return (name * 40).encode()[: 700 + len(name)]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content(name))
    return root


def make_zip(folder, path, prefix="", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def make_tar(folder, path, prefix="", layout=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=layout) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.add(file, prefix + str(file.relative_to(folder)), recursive=False)
    return path


ARCHIVES = {
    "stored zip": lambda folder, path, prefix: make_zip(folder, path, prefix, zipfile.ZIP_STORED),
    "deflated zip": make_zip,
    "GNU tar": make_tar,
    "pax tar": lambda folder, path, prefix: make_tar(folder, path, prefix, tarfile.PAX_FORMAT),
}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("prefix", ["", "./", "data/faces/", "/"])
def test_an_archive_reads_as_its_folder(folder, tmp_path, kind, prefix):
    path = ARCHIVES[kind](folder, tmp_path / "archive.dat", prefix)
    reader, original = open_reader(path), FolderReader(folder)
    assert isinstance(reader, ArchiveReader)
    assert reader.read(range(len(reader))) == original.read(range(len(original)))
    np.testing.assert_array_equal(reader.labels, original.labels)
    assert reader.labels.dtype == np.int64
    assert (list(reader.class_names), reader.num_classes) == (list(original.class_names), original.num_classes)


def test_the_tar_of_the_system_and_its_links(folder, tmp_path):
    (folder / "9" / "link.jpg").symlink_to("x.webp")
    (folder / "8").symlink_to("9")
    path = tmp_path / "archive.tar"
    os.system(f"cd {folder} && tar cf {path} .")
    assert [record.key for record in open_reader(path).read([0, 1, 2])] == [
        "10/a.PNG",
        "10/b.jpg",
        "9/" + LONG + "é.jpg",
    ]
    assert len(open_reader(path)) == 6


def test_images_beside_the_folders_and_mac_leftovers_are_no_faces(folder, tmp_path):
    (folder / "cover.jpg").write_bytes(b"x")
    (folder / "__MACOSX" / "9").mkdir(parents=True)
    (folder / "__MACOSX" / "9" / "x.jpg").write_bytes(b"x")
    assert len(open_reader(make_zip(folder, tmp_path / "a.zip", "set/"))) == 6


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_sets_without_two_identities(tmp_path, make):
    (tmp_path / "set" / "tom").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a.dat: .*no images in folders"):
        open_reader(make(tmp_path / "set", tmp_path / "a.dat", ""))
    for number in range(3):
        (tmp_path / "set" / "tom" / f"{number}.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a.dat: .*one identity only \(tom\)"):
        open_reader(make(tmp_path / "set", tmp_path / "a.dat", "faces/"))


def test_a_damaged_file_in_a_zip_is_named(folder, tmp_path):
    path = make_zip(folder, tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(content("9/x.webp")) + 9] ^= 1
    path.write_bytes(data)
    reader = open_reader(path)
    with pytest.raises(InputError, match=r"a.zip: record 3, '9/x.webp', byte \d+, is damaged: its checksum is wrong"):
        reader.read([3])
    reader.read([0, 1, 2, 4, 5])


def test_bombs_and_encrypted_files_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(3_000_000))
        archive.writestr("b/1.jpg", b"x")
    with pytest.raises(InputError, match=r"record 0, 'a/1.jpg', .* claims 3,000,000 bytes, packed into"):
        open_reader(path).read([0])
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = (1000).to_bytes(4, "little")  # says it is small
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum is wrong"):
        open_reader(path).read([0])
    data[central + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a.zip: 'a/1.jpg' is encrypted"):
        open_reader(path)


def test_a_damaged_tar_is_named_with_the_byte(folder, tmp_path):
    path = make_tar(folder, tmp_path / "a.tar")
    data = bytearray(path.read_bytes())
    at = data.index(b"9/v1/y.bmp") // 512 * 512
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a.tar: the tar archive is damaged at byte {at}: no file starts there"):
        open_reader(path)


def test_compressed_tar_is_refused_with_the_cure(folder, tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")
    with pytest.raises(InputError, match=r"a.tar.gz: .*gunzip"):
        open_reader(tmp_path / "a.tar.gz")


def small(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
                archive.writestr(name, name * 9)
    else:
        layout = tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT
        with tarfile.open(fileobj=stream, mode="w", format=layout) as archive:
            for name in ("a/1.jpg", "b/1.jpg", f"b/{LONG}é.jpg"):
                entry = tarfile.TarInfo(name)
                entry.size = 9
                archive.addfile(entry, io.BytesIO(b"123456789"))
    return stream.getvalue()
