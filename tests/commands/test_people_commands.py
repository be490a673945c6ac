"""`marginface gallery`, `identify` and `verify` on real photographs, as a newcomer types them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from marginface import cli

pytestmark = pytest.mark.lfw


@pytest.fixture(scope="module")
def photos(lfw_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """known/ and probe/: five people, two photographs and another one; somebody else in probe/ too."""
    folder = tmp_path_factory.mktemp("photos")
    names = [line.split("\t")[0] for line in (lfw_root / "val_names.txt").read_text().splitlines()]
    rich = [name for name in names if len(list((lfw_root / "images" / name).glob("*.jpg"))) >= 4][:6]
    for name in rich:
        paths = sorted((lfw_root / "images" / name).glob("*.jpg"))
        for part, some in (("known", paths[:2]), ("probe", paths[2:3])):
            if name != rich[-1] or part == "probe":
                (folder / part / name).mkdir(parents=True)
                for path in some:
                    (folder / part / name / path.name).write_bytes(path.read_bytes())
    (folder / "known" / rich[0] / "broken.jpg").write_bytes(b"")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    cli.main([str(word) for word in words])
    return capsys.readouterr().out


def test_from_photographs_to_names_and_back(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"--gallery={tmp_path / 'people.db'}"
    told = run(capsys, "gallery", "add", photos / "known", where)
    assert "11 photographs: 10 added, 0 already enrolled, 1 left out; 5 people, 10 faces" in told
    words = ["identify", photos / "probe", where, "--threshold=0.925", "--json", "--save", tmp_path / "drawn"]
    lines = [json.loads(line) for line in run(capsys, *words).splitlines()]
    assert len(lines) == 6
    known = {path.name for path in (photos / "known").iterdir()}
    right = 0
    for line in lines:
        person = Path(line["source"]).parent.name
        names = {face["name"] for face in line["faces"]}
        assert names - {"unknown"} <= ({person} & known), line  # nobody is taken for another
        right += person in names
        assert cv2.imread(str(tmp_path / "drawn" / person / Path(line["source"]).name)).shape == (250, 250, 3)
    assert right >= 4
    assert "5 people, 10 faces" in run(capsys, "gallery", "info", where)
    first, second, *_ = sorted(known)
    assert "2 faces of 1 people gone; 4 people, 8 faces" in run(capsys, "gallery", "erase", first, where)
    assert "2 faces of 1 people gone; 3 people" in run(capsys, "gallery", "remove", second, where)
    assert first not in run(capsys, "gallery", "list", where)
    assert "6 faces" in run(capsys, "gallery", "export", tmp_path / "out", where)
    assert np.load(tmp_path / "out" / "vectors.npy").shape == (6, 128)


def test_words_in_any_order(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted((photos / "probe").glob("*/*.jpg"))[:2]
    where = ["--gallery", tmp_path / "people.db"]
    assert "2 added" in run(capsys, "gallery", "add", "--name", "Ann Lee", *images, *where)
    assert "1 photographs: 0 added, 1 already" in run(capsys, "gallery", "add", *where, "--name=Ann Lee", images[0])
    assert "Ann Lee (" in run(capsys, "identify", *where, "--threshold", 0.8, images[1])
    assert "2 faces of 1 people gone" in run(capsys, "gallery", *where, "erase", "Ann Lee")


def test_two_photographs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [path for path in sorted((photos / "known").glob("*/*.jpg")) if path.stat().st_size]
    same = json.loads(run(capsys, "verify", paths[0], paths[1], "--threshold=0.9", "--json"))
    other = json.loads(run(capsys, "verify", paths[0], paths[2], "--threshold=0.9", "--json"))
    assert same["similarity"] > other["similarity"]
    assert "similarity" in run(capsys, "verify", paths[0], paths[1])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["gallery", "list", "--gallery=nowhere.db"], "nowhere.db does not exist; `marginface gallery add` makes it"),
        (["gallery", "add"], "gallery add needs photographs"),
        (["gallery", "remove"], "gallery remove needs the names"),
        (["identify"], "identify needs a photograph, a folder or a video"),
        (["identify", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["verify", "nowhere.jpg", "b.jpg"], "nowhere.jpg cannot be read"),
    ],
)
def test_mistakes(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert answer in capsys.readouterr().err
