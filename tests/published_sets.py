"""Tiny data sets in the formats, and under the names, in which the published runs have theirs: synthetic faces."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from marginface.convert import convert
from marginface.readers.bin_writer import write_bin
from marginface.readers.synthetic import SyntheticFaces, write_folder
from marginface.readers.verification import open_verification

RECORDS = (  # folders of InsightFace: train.rec, train.idx, property and the .bin of the benchmarks
    "faces_emore", "faces_webface_112x112", "faces_vgg_112x112", "ms1m-retinaface-t1", "glint360k", "WebFace4M",
    "WebFace12M", "WebFace42M", "WebFace12M_FLIP40",
)  # fmt: skip
IMAGES = ("faces_emore/imgs", "faces_webface_112x112/imgs", "faces_vgg_112x112/imgs", "ms1m-retinaface-t1/imgs",
          "webface4m", "webface12m")  # fmt: skip
BENCHMARKS = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
PEOPLE, PICTURES = 12, 5


def write_published_sets(folder: Path) -> Path:
    """Everything the recipes name, below `folder`, with 12 people of 5 pictures."""
    write_folder(SyntheticFaces(PEOPLE, PICTURES), folder / "photographs", ".jpg")
    convert(str(folder / "photographs"), folder / "set")
    write_pairs(folder / "photographs", folder / "set" / "lfw.bin")
    for name in BENCHMARKS[1:]:
        shutil.copy(folder / "set" / "lfw.bin", folder / "set" / f"{name}.bin")
    for name in RECORDS:
        shutil.copytree(folder / "set", folder / name)
    for name in IMAGES:
        shutil.copytree(folder / "photographs", folder / name)
    for name in RECORDS[:4]:
        for benchmark in BENCHMARKS:
            write_memfile(folder / name / f"{benchmark}.bin")
    (folder / "ms1mv2_train_subset_index.txt").write_text(",".join(str(i) for i in range(55)))
    write_vggface2(folder / "vggface2")
    write_lfw(folder / "lfw")
    return folder


def write_pairs(photographs: Path, file: Path) -> None:
    """A .bin of two pairs a person, one of them with the next person."""
    people = [sorted(person.iterdir()) for person in sorted(photographs.iterdir())]
    images = []
    for person, other in zip(people, [*people[1:], people[0]], strict=True):
        images += [path.read_bytes() for path in (person[0], person[1], person[2], other[2])]
    write_bin(file, images, np.tile([True, False], len(people)))


def write_memfile(stored: Path) -> None:
    """AdaFace's: BGR float32 in [-1, 1] with a .conf, and the list of what is the same person."""
    pairs = open_verification(stored)
    images = [cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR) for record in pairs.images]
    array = ((np.stack(images).transpose(0, 3, 1, 2) - 127.5) / 127.5).astype("<f4")
    folder = stored.with_suffix("") / "memfile"
    folder.mkdir(parents=True)
    (folder / "mem_file.dat").write_bytes(array.tobytes())
    (folder / "mem_file.dat.conf").write_text(json.dumps({"shape": array.shape, "dtype": "float32"}))
    np.save(stored.with_name(f"{stored.stem}_list.npy"), pairs.issame)


def write_vggface2(folder: Path) -> None:
    """Photographs of n000000/0000_01.jpg, a list of them, and the points in bb_landmark/loose_landmark_train.csv."""
    faces = SyntheticFaces(PEOPLE, PICTURES, size=160)
    names, rows = [], ["NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y"]
    for record in faces.read(range(len(faces))):
        name = f"n{record.label:06d}/{len(names):04d}_01"
        path = folder / "train" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(record.image, np.ndarray)
        cv2.imwrite(str(path), cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR))
        names.append(f"{name}.jpg")
        rows.append(",".join([f'"{name}"', *(f"{value:.1f}" for value in np.ravel(record.points))]))
    for file, lines in (("meta/train_list.txt", names), ("bb_landmark/loose_landmark_train.csv", rows)):
        (folder / file).parent.mkdir()
        (folder / file).write_text("\n".join(lines) + "\n")


def write_lfw(folder: Path) -> None:
    """lfw/lfw/Name/Name_0001.jpg, lfw_landmark.txt and pairs.txt, as sphereface_pytorch has them."""
    faces = SyntheticFaces(PEOPLE, PICTURES, first_identity=500, size=160)
    rows = []
    for index, record in enumerate(faces.read(range(len(faces)))):
        person = f"Person_{record.label:02d}"
        name = f"{person}/{person}_{index % PICTURES + 1:04d}.jpg"
        path = folder / "lfw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(record.image, np.ndarray)
        cv2.imwrite(str(path), cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR))
        rows.append("\t".join([name, *(str(round(float(value))) for value in np.ravel(record.points))]))
    (folder / "lfw_landmark.txt").write_text("\n".join(rows) + "\n")
    same = [f"Person_{person:02d}\t1\t2" for person in range(PEOPLE)]
    different = [f"Person_{person:02d}\t1\tPerson_{(person + 1) % PEOPLE:02d}\t2" for person in range(PEOPLE)]
    blocks = [line for fold in range(PEOPLE) for line in (same[fold], different[fold])]
    (folder / "pairs.txt").write_text("\n".join([f"{PEOPLE}\t1", *blocks]) + "\n")
