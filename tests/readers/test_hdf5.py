"""HDF5 files with a group an identity."""

import subprocess
import sys

import cv2
import h5py
import numpy as np
import pytest

from marginface.errors import InputError
from marginface.loading.decode import decode
from marginface.readers import open_reader
from marginface.readers.hdf5 import HDF5Reader


def picture(number: int) -> np.ndarray:
    return np.full((112, 112, 3), number, np.uint8)


def png(number: int) -> np.ndarray:
    return cv2.imencode(".png", picture(number))[1].ravel()


def write(path, stored=png, groups=("0", "2", "10")):
    with h5py.File(path, "w") as file:
        for label, group in enumerate(groups):
            for number in range(2):
                file.create_dataset(f"{group}/{number}.png", data=stored(10 * label + number))
    return path


@pytest.mark.parametrize(
    "stored", [png, picture, lambda n: np.void(png(n).tobytes())], ids=["bytes", "pixels", "opaque"]
)
def test_groups_in_numeric_order(tmp_path, stored):
    reader = open_reader(write(tmp_path / "faces", stored))
    assert isinstance(reader, HDF5Reader)
    assert list(reader.class_names) == ["0", "2", "10"]
    assert reader.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert reader.num_classes == 3
    records = reader.read([5, 2, 0])
    assert [(record.key, record.label) for record in records] == [("10/1.png", 2), ("2/0.png", 1), ("0/0.png", 0)]
    assert [int(decode(record)[0, 0, 0]) for record in records] == [21, 10, 0]


def test_names_are_sorted_and_links_in_a_circle_end(tmp_path):
    with h5py.File(write(tmp_path / "faces", groups=("zoe", "10", "ann")), "a") as file:
        file["ann/again"] = file["ann"]
        file.create_dataset("stray", data=[1])
    reader = open_reader(tmp_path / "faces")
    assert list(reader.class_names) == ["10", "ann", "zoe"]
    assert len(reader) == 6


def test_a_forked_process_reads_on_its_own(tmp_path):
    script = (
        "import os, sys\nfrom marginface.readers import open_reader\n"
        f"reader = open_reader({str(write(tmp_path / 'faces'))!r})\nreader.read([0])\n"
        "child = os.fork()\nright = [r.key for r in reader.read(range(6))][5] == '10/1.png'\n"
        "os._exit(0 if right else 1) if child == 0 else sys.exit(os.waitpid(child, 0)[1] or not right)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"faces: holds one identity only \(tom\)"):
        open_reader(write(tmp_path / "faces", groups=("tom",)))
    with pytest.raises(InputError, match=r"faces: record 0, 0/0.png, is damaged: it is neither encoded bytes nor"):
        open_reader(write(tmp_path / "faces", lambda n: np.zeros(5))).read([0])
    (tmp_path / "faces").write_bytes((tmp_path / "faces").read_bytes()[:500])
    with pytest.raises(InputError, match=r"faces: not an HDF5 file that can be read"):
        open_reader(tmp_path / "faces")


def test_bombs_are_refused(tmp_path):
    with h5py.File(tmp_path / "faces", "w") as file:
        for group in ("a", "b"):
            file.create_dataset(f"{group}/1", shape=(1 << 40,), chunks=(1 << 20,), dtype="u1")
    with pytest.raises(InputError, match=r"record 0, a/1, is damaged: it claims 1,099,511,627,776 bytes"):
        open_reader(tmp_path / "faces").read([0])
