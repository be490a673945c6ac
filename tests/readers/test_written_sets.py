"""What we write, every word of ours reads: all writers, and all readers, benchmarks and verbs that take a data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marginface.align import align_faces
from marginface.convert import Selection, convert, convert_pairs
from marginface.embedder import Embedder, ModelConfig
from marginface.evaluate import open_benchmark
from marginface.evaluate.folder import embed_folder
from marginface.gallery.photos import photos_in
from marginface.inspect import inspect
from marginface.loading.loader import DataConfig, Loader
from marginface.readers import open_reader
from marginface.readers.image_walk import describe_left_out
from marginface.readers.synthetic import SyntheticFaces, write_folder
from people import write_people

PEOPLE, EACH, SIDE = 20, 3, 24


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same people as folders of names, in nested folders, with blanks and commas, and as numbers with gaps."""
    root = tmp_path_factory.mktemp("sources")
    write_people(root / "named", PEOPLE, EACH, SIDE)
    for image in sorted((root / "named").rglob("*.jpg")):
        person, number = image.parent.name, image.stem[-4:]
        for place in (
            f"nested/{person}/session {number}/face.jpg",
            f"odd/{person[1:]}, {person}/_{number} 100%.jpg",
            f"numbered/{7 * int(person[1:]) + 3}/{number}.jpg",
        ):
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_bytes(image.read_bytes())
    return root


SOURCES = ["named", "nested", "odd", "numbered"]
FORMATS = ["folder", "recordio", "parquet", "webdataset"]


def aligned(source: Path, folder: Path) -> None:
    points = np.array([[8, 9], [16, 9], [12, 13], [9, 18], [15, 18]], np.float32)
    align_faces(open_reader(source), folder, 112, detect=lambda image: points)


def embedded(path: Path, scratch: Path, model: Embedder) -> int:
    return embed_folder(model, path, scratch / "faces.npz", resize=True)


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.create(ModelConfig("small", 8, {"width": 4}))


def check(path: Path, scratch: Path, model: Embedder, people: int = PEOPLE, each: int = EACH) -> None:
    """Every word for data sets."""
    reader = open_reader(path)
    count = people * each
    assert (len(reader), reader.num_classes) == (count, people)
    assert np.bincount(reader.labels).tolist() == [each] * people
    assert describe_left_out(path, reader) == ""
    findings, _ = inspect(str(path))
    assert (len(findings.labels), findings.unreadable, findings.without_images) == (count, {}, [])
    assert findings.write_clean(scratch / "clean.txt") >= count // 2
    assert convert(str(path), scratch / "clean", "recordio", Selection(subset=str(scratch / "clean.txt"))) > 0
    for number, to in enumerate(FORMATS):
        assert convert(str(path), scratch / f"again{number}", to) == count
    assert convert_pairs(str(path), scratch / "pairs.bin") > 0
    assert len(open_benchmark(str(scratch / "pairs.bin")).images) > 0
    for spec in (f"closedset:{path}", f"pairs:{path}", *([str(path)] if path.is_dir() else [])):
        benchmark = open_benchmark(spec, resize=True)
        assert len(set(benchmark.images.keys)) == len(benchmark.images) > 0
        assert benchmark.images.take(range(len(benchmark.images)), SIDE).shape[1:] == (SIDE, SIDE, 3)
        assert len(benchmark.checksum()) == 64
    assert embedded(path, scratch, model) == count
    loader = Loader(reader, DataConfig(train=str(path), batch_size=8, size=SIDE, resize=True, workers=1), seed=1)
    batches = loader.start(0)
    assert len(next(batches).labels) == 8
    batches.close()
    aligned(path, scratch / "aligned")
    assert len(open_reader(scratch / "aligned")) == count


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("to", FORMATS)
def test_what_convert_writes(sources: Path, tmp_path: Path, model: Embedder, source: str, to: str) -> None:
    written = tmp_path / "a set, of ours"
    convert(str(sources / source), written, to)
    (tmp_path / "scratch").mkdir()
    check(written, tmp_path / "scratch", model)
    if to == "folder":
        assert len(list(photos_in(written))) == PEOPLE * EACH


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "align": lambda source, folder: aligned(source, folder),
    "synthetic": lambda source, folder: write_folder(SyntheticFaces(PEOPLE, EACH), folder, ".png"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_else_writes_folders(sources: Path, tmp_path: Path, model: Embedder, writer: str) -> None:
    WRITERS[writer](sources / "nested", tmp_path / "written")
    (tmp_path / "scratch").mkdir()
    check(tmp_path / "written", tmp_path / "scratch", model)
