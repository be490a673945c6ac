"""A set with one fault of each kind."""

import io
import json
import pickle

import cv2
import numpy as np
import pytest
from rich.console import Console

from marginface.convert import Selection, convert
from marginface.inspect import inspect, print_findings, write_page
from marginface.inspect.duplicates import hamming
from marginface.inspect.findings import summary
from marginface.inspect.survey import is_grey, perceptual_hash
from marginface.readers import open_reader


def jpeg(picture, quality=95):
    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture(scope="module")
def pictures():
    reader = open_reader("synthetic:identities=6,images=4")
    return [record.image for record in reader.read(range(24))]


@pytest.fixture
def faulty(tmp_path, pictures):
    """Six people with four images; faults on top."""
    for number, picture in enumerate(pictures):
        path = tmp_path / "set" / f"p{number // 4}" / f"{number % 4}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(picture))
    root = tmp_path / "set"
    (root / "p0" / "copy.jpg").write_bytes(jpeg(pictures[0]))
    (root / "p1" / "stolen.jpg").write_bytes(jpeg(pictures[8]))  # of p2
    (root / "p3" / "again.jpg").write_bytes(jpeg(pictures[12], quality=60))
    (root / "p4" / "grey.jpg").write_bytes(
        cv2.imencode(".jpg", cv2.cvtColor(pictures[16], cv2.COLOR_RGB2GRAY)[:, ::-1])[1].tobytes()
    )
    (root / "p4" / "small.png").write_bytes(
        cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (50, 40, 3)))[1].tobytes()
    )
    (root / "p5" / "cut.jpg").write_bytes(jpeg(pictures[20])[:900])
    benchmark = ([jpeg(pictures[23]), b"x", jpeg(pictures[7], quality=70), jpeg(255 - pictures[3])], [True, False])
    (tmp_path / "benchmark.bin").write_bytes(pickle.dumps(benchmark))
    return root


def test_every_fault_is_found(faulty, tmp_path):
    findings, reader = inspect(str(faulty), against=[str(tmp_path / "benchmark.bin")])
    found = json.loads(json.dumps(findings.to_dict()))
    assert (found["images"], found["identities"], found["declared_identities"]) == (30, 6, 6)
    assert found["images_per_identity"]["5–9"] == 6 or found["images_per_identity"]["3–4"] >= 1
    assert sum(found["images_per_identity"].values()) == 6
    assert found["sizes"][0] == {"width": 112, "height": 112, "images": 28}
    assert found["sizes"][1] == {"width": 40, "height": 50, "images": 1}
    assert found["same_bytes"] == {
        "within_identities": [["p0/0.jpg", "p0/copy.jpg"]],
        "across_identities": [["p1/stolen.jpg", "p2/0.jpg"]],
    }
    assert found["alike"]["within_identities"] == [["p3/0.jpg", "p3/again.jpg"]]
    assert found["alike"]["across_identities"] == []
    assert list(found["unreadable"]) == ["p5/cut.jpg"]
    assert [findings.keys[row] for row in findings.grey] == ["p4/grey.jpg"]
    (overlap,) = found["overlaps"]
    assert overlap["same_bytes"] == ["p5/3.jpg"]
    assert overlap["alike"] == ["p1/3.jpg"]

    page = tmp_path / "page.html"
    write_page(page, findings, reader)
    html = page.read_text()
    assert html.count("data:image/jpeg") >= 30
    assert "p1/stolen.jpg" in html
    assert "http" not in html.replace("http-equiv", "")
    console = Console(record=True, width=300, file=io.StringIO())
    print_findings(findings, console)
    assert "1 groups within identities, 1 across" in console.export_text()


def test_what_is_clean_can_be_kept(faulty, tmp_path):
    findings, _ = inspect(str(faulty), against=[str(tmp_path / "benchmark.bin")])
    gone = {"p0/copy.jpg", "p1/stolen.jpg", "p2/0.jpg", "p5/cut.jpg", "p5/3.jpg", "p1/3.jpg"}
    assert findings.write_clean(tmp_path / "clean.txt") == 30 - len(gone)
    assert set((tmp_path / "clean.txt").read_text().split()) == set(findings.keys) - gone
    convert(str(faulty), tmp_path / "clean", "folder", Selection(subset=str(tmp_path / "clean.txt")))
    again, _ = inspect(str(tmp_path / "clean"))
    assert not again.same_bytes
    assert not again.unreadable


def test_names_shared_with_a_labelled_set(faulty, tmp_path):
    for name in ("p2", "someone"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "1.jpg").write_bytes(jpeg(np.zeros((112, 112, 3), np.uint8)))
    findings, _ = inspect(str(faulty), against=[str(tmp_path / "other")])
    assert findings.overlaps[0].names == ["p2"]


def test_a_property_file_that_is_wrong_and_labels_without_images(faulty, tmp_path):
    convert(str(faulty), tmp_path / "rec", "recordio")
    (tmp_path / "rec" / "property").write_text("99,112,112\n")
    findings, _ = inspect(str(tmp_path / "rec"))
    assert (findings.stated_classes, findings.num_classes, findings.without_images) == (99, 6, [])
    assert ("property file", "is wrong: says 99 identities") in summary(findings)


def test_damaged_records_are_counted_and_the_others_read(faulty, tmp_path):
    convert(str(faulty), tmp_path / "rec", "recordio")
    offset = int((tmp_path / "rec" / "train.idx").read_text().splitlines()[3].split()[1])
    data = bytearray((tmp_path / "rec" / "train.rec").read_bytes())
    data[offset] ^= 1
    (tmp_path / "rec" / "train.rec").write_bytes(data)
    findings, _ = inspect(str(tmp_path / "rec"))
    assert findings.unreadable[3].startswith(str(tmp_path / "rec" / "train.rec: record 3 (key 4"))
    assert len(findings.unreadable) == 2


def test_looks_survive_what_happens_to_pictures_and_tell_faces_apart(pictures):
    def changes(picture):
        yield cv2.imdecode(np.frombuffer(jpeg(picture, 50), np.uint8), 1)[..., ::-1]
        yield cv2.resize(cv2.resize(picture, (80, 80), interpolation=cv2.INTER_AREA), (112, 112))
        yield np.clip(picture * 1.1 + 5, 0, 255).astype(np.uint8)
        yield cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)

    looks = np.stack([perceptual_hash(picture) for picture in pictures])
    for picture, own in zip(pictures, looks, strict=True):
        for changed in changes(picture):
            assert hamming(own[None], perceptual_hash(np.ascontiguousarray(changed))[None])[0] <= 20
    a, b = np.triu_indices(len(looks), 1)
    assert hamming(looks[a], looks[b]).min() > 30


def test_grey_is_told_from_pale():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (112, 112, 1), dtype=np.uint8), 3, axis=2)
    assert is_grey(grey)
    assert not is_grey(np.clip(grey + np.array([12, 0, -8]), 0, 255).astype(np.uint8))
