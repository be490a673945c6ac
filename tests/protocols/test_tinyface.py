"""TinyFace's folders and MATLAB lists, made by scipy; ranks against a loop."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from marginface.errors import InputError
from marginface.protocols.matlab import read_names
from marginface.protocols.tinyface import DISTRACTOR, read_tinyface

PROBES = ["1_1.jpg", "2_1.jpg", "9_1.jpg"]
MATCHES = ["1_2.jpg", "1_3.jpg", "2_2.jpg", "3_1.jpg"]


def cells(names: list[str]) -> np.ndarray:
    """(N, 2) cell array: names, and the numbers beside them."""
    rows = np.empty((len(names), 2), object)
    rows[:, 0] = names
    rows[:, 1] = [float(name.partition("_")[0]) for name in names]
    return rows


@pytest.fixture(params=[True, False])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    testing = tmp_path / "tinyface" / "Testing_Set"
    for folder in (testing / "Gallery_Distractor", tmp_path / "aligned_pad_0.1_pad_high" / "x"):
        folder.mkdir(parents=True)
    savemat(testing / "probe_img_ID_pairs.mat", {"probe_set": cells(PROBES)}, do_compression=request.param)
    savemat(
        testing / "gallery_match_img_ID_pairs.mat",
        {"other": np.arange(3), "gallery_set": cells(MATCHES)},
        do_compression=request.param,
    )
    for name in ("d1.jpg", "d2.jpg"):
        (testing / "Gallery_Distractor" / name).touch()
    for name in [*PROBES, *MATCHES, "d1.jpg", "d2.jpg", "5_5.jpg"]:
        (tmp_path / "aligned_pad_0.1_pad_high" / "x" / name).with_suffix(".png").touch()
    return tmp_path


def test_lists_labels_and_aligned_copies(root: Path) -> None:
    tiny = read_tinyface(root)
    assert [path.name for path in tiny.images] == [
        Path(name).stem + ".png" for name in [*PROBES, *MATCHES, "d1.jpg", "d2.jpg"]
    ]
    assert tiny.labels.tolist() == [1, 2, 9, 1, 1, 2, 3, DISTRACTOR, DISTRACTOR]
    assert tiny.probes == 3


def test_ranks_count_the_nearest_mate(root: Path) -> None:
    tiny = read_tinyface(root)
    angles = np.radians([0, 90, 50, 60, 10, 120, 5, 80, 85])  # of the probes, matches and distractors
    embeddings = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = tiny.score(embeddings)
    # probe 1 at 0: nearest 3_1 at 5, then its mate at 10; probe 2 at 90: 85, 80, then its mates at 120 and 60: a tie
    assert found.ranks == {1: 0.0, 5: 1.0, 20: 1.0}
    assert found.cmc[:4].tolist() == [0.0, 0.5, 0.5, 1.0]
    assert (found.probes, found.gallery, found.people) == (2, 6, 2)
    assert found.notes == ["1 probe(s) without a mate are left out"]
    with pytest.raises(InputError, match="needs"):
        tiny.score(embeddings[1:])


def test_what_is_missing_is_named_and_counted(root: Path) -> None:
    copies = root / "aligned_pad_0.1_pad_high" / "x"
    for name in ("2_1.png", "d2.png"):
        (copies / name).unlink()
    with pytest.raises(InputError, match=r"2 of TinyFace's 9 images have no aligned copy .* \(first: 2_1.jpg\)"):
        read_tinyface(root)
    with pytest.raises(InputError, match="does not exist; align"):
        read_tinyface(root, "absent")
    (root / "tinyface" / "Testing_Set" / "probe_img_ID_pairs.mat").unlink()
    with pytest.raises(InputError, match="cannot be opened"):
        read_tinyface(root)


def test_other_matlab_files_are_refused(root: Path) -> None:
    path = root / "tinyface" / "Testing_Set" / "probe_img_ID_pairs.mat"
    with pytest.raises(InputError, match="holds no cell array 'absent'"):
        read_names(path, "absent")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole MATLAB 5 file"):
        read_names(path, "probe_set")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(InputError, match="not a whole MATLAB 5 file"):
        read_names(path, "probe_set")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "names.mat"
    path.write_bytes(bytes(124) + b"\x00\x01IM" + content)
    with pytest.raises(InputError):
        read_names(path, "probe_set")
