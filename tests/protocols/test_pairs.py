"""LFW-style pair lists: reading, writing, drawing; what is malformed is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden_files
from marginface.errors import InputError
from marginface.protocols.pairs import make_folder_pairs, make_pairs, read_pairs, stored_pairs, write_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight people with three or four empty 'pictures' each; reading pairs does not open them."""
    for person in "abcdefgh":
        (tmp_path / person).mkdir()
        for number in range(1, 4 + (person < "c")):
            suffix = ".png" if number == 2 else ".jpg"
            (tmp_path / person / f"{person}_{number:04d}{suffix}").touch()
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    file = folder / "pairs.txt"
    file.write_text("\n".join(lines).replace(" ", "\t") + "\n")
    return file


GOOD = ("2 1", "a 1 2", "a 1 b 3", "c 2 3", "c 1 d 2")


def test_reads_pairs_folds_people_and_pictures(folder: Path) -> None:
    pairs = read_pairs(write(folder, *GOOD), folder)
    assert [pairs.keys[i] for i in pairs.first] == ["a/a_0001.jpg", "a/a_0001.jpg", "c/c_0002.png", "c/c_0001.jpg"]
    assert [pairs.keys[i] for i in pairs.second] == ["a/a_0002.png", "b/b_0003.jpg", "c/c_0003.jpg", "d/d_0002.png"]
    assert pairs.same.tolist() == [True, False, True, False]
    assert [fold.tolist() for fold in pairs.folds] == [[0, 1], [2, 3]]
    assert (pairs.subjects[pairs.first] == pairs.subjects[pairs.second]).tolist() == pairs.same.tolist()
    assert len(pairs.images) == len(set(pairs.images)) == 7
    assert all(path.is_file() for path in pairs.images)
    assert pairs.notes == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "must begin with"),
        (("10",), "must begin with"),
        (("a b",), "must begin with"),
        (("2 1", "a 1 2"), "announces 2 folds of 1 same and 1 different pairs but holds 1"),
        (("2 1", "a 1", *GOOD[2:]), "line 2: expected"),
        (("2 1", "a x 2", *GOOD[2:]), "line 2: expected"),
        (("2 1", "a 1 b 2 3", *GOOD[2:]), "line 2: expected"),
        (("2 1", "a 1 a 2", *GOOD[2:]), "line 2: a different pair names a twice"),
        (("2 1", GOOD[2], GOOD[1], *GOOD[3:]), r"line 2: each fold must list.*\(2 lines out of place\)"),
        (
            ("2 1", "a 1 9", "a 8 b 3", *GOOD[3:]),
            r"2 of the \d pictures named in .* \(first: a 8, looked for as a/",
        ),
    ],
)
def test_malformed_lists_are_refused_by_line(folder: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs(write(folder, *lines), folder)


def test_missing_files_and_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(folder / "absent.txt", folder)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_pairs(folder / "binary.txt", folder)
    with pytest.raises(InputError, match="is not a folder"):
        read_pairs(write(folder, *GOOD), folder / "absent")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_pairs_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "pairs.txt"
    file.write_bytes(content)
    with pytest.raises(InputError):
        read_pairs(file, file.parent)


def test_repeated_pairs_are_counted(folder: Path) -> None:
    pairs = read_pairs(write(folder, "2 1", "a 1 2", "a 1 b 3", "a 2 1", "c 1 d 2"), folder)
    assert pairs.notes == ("1 pair(s) repeat an earlier one (first: line 4)",)


def test_drawn_pairs_of_a_folder_survive_writing_and_reading(folder: Path) -> None:
    drawn = make_folder_pairs(folder, folds=2, per_fold=5, seed=1)
    write_pairs(folder / "pairs.txt", drawn)
    again = read_pairs(folder / "pairs.txt", folder)
    assert [drawn.keys[i] for i in drawn.first] == [again.keys[i] for i in again.first]
    assert [drawn.keys[i] for i in drawn.second] == [again.keys[i] for i in again.second]
    assert drawn.same.tolist() == again.same.tolist()
    assert again.notes == ()


def test_pictures_of_other_names_cannot_be_written(folder: Path) -> None:
    for person in "ab":
        (folder / person / "face.jpg").touch()
    drawn = make_folder_pairs(folder, folds=2, per_fold=19)
    with pytest.raises(InputError, match=r"cannot name ./face.jpg"):
        write_pairs(folder / "pairs.txt", drawn)
    assert not (folder / "pairs.txt").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=8, max_size=30), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_drawn_pairs_are_balanced_distinct_and_disjoint_in_people(sizes: list[int], folds: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    pairs = make_pairs(labels, folds, None, seed)
    records = np.array(pairs.images)
    first, second = labels[records[pairs.first]], labels[records[pairs.second]]
    np.testing.assert_array_equal(first == second, pairs.same)
    np.testing.assert_array_equal(labels[records], pairs.subjects)
    listed = [frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]
    assert len(set(listed)) == len(listed)
    assert all(len(pair) == 2 for pair in listed)
    people = [set(first[fold]) | set(second[fold]) for fold in pairs.folds]
    assert sum(len(own) for own in people) == len(set().union(*people))
    assert len({(int(pairs.same[fold].sum()), len(fold)) for fold in pairs.folds}) == 1
    assert 2 * pairs.same.sum() == len(pairs.same)


def test_people_with_many_images_do_not_rule_the_draw() -> None:
    labels = np.repeat(np.arange(40), [400, *[6] * 39])
    pairs = make_pairs(labels, folds=2, per_fold=100, seed=0)
    first = pairs.subjects[pairs.first[pairs.same]]
    assert np.bincount(first).max() <= 8


def test_the_draw_repeats_by_seed() -> None:
    labels = np.repeat(np.arange(30), 5)
    drawn = [make_pairs(labels, folds=3, per_fold=20, seed=seed) for seed in (4, 4, 5)]
    assert drawn[0].images == drawn[1].images
    assert drawn[0].images != drawn[2].images


@pytest.mark.parametrize(
    ("labels", "per_fold", "message"),
    [
        ([0, 0, 1, 1], 1, "need at least 20 people; there are 2"),
        (list(range(40)), 1, "yield at most 0 same"),
        ([0, 0] * 10 + list(range(40)), 2, "yield at most 0 same"),
        (list(range(40)) * 2, 300, "at most 4 same and different pairs in each of 10 folds, not 300"),
        (list(range(40)) * 2, 0, "not 0"),
    ],
)
def test_labels_that_hold_too_few_pairs_are_refused(labels: list[int], per_fold: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_pairs(np.array(labels), 10, per_fold)


def test_scoring_wants_an_embedding_an_image() -> None:
    pairs = make_pairs(np.repeat(np.arange(30), 5), folds=3, name="unseen")
    embeddings = np.random.default_rng(0).normal(size=(len(pairs.images), 8))
    result = pairs.score(embeddings, "random", replicates=20)
    assert (result.benchmark, result.model) == ("unseen", "random")
    assert 0.3 < result.accuracy.mean < 0.7
    with pytest.raises(InputError, match="needs"):
        pairs.score(embeddings[:-1])
    embeddings[3] = 0
    with pytest.raises(InputError, match=r"1 of .* zero"):
        pairs.score(embeddings)


@pytest.mark.lfw
def test_the_real_list_is_read(lfw_root: Path) -> None:
    pairs = read_pairs(lfw_root / "pairs_val.txt", lfw_root / "images", "lfw-val")
    assert len(pairs.folds) == 10
    assert pairs.same.sum() == len(pairs.same) / 2


def golden_embeddings(name: str) -> np.ndarray:
    arrays = golden_files.arrays(name)
    return arrays.get("embeddings", arrays.get("embeddings_fused"))


# The hand-made entries hold other lengths; normalising them would change the figure.
UNIT_LENGTH = [
    name
    for name in golden_files.entries("verification/")
    if np.allclose(np.linalg.norm(golden_embeddings(name), axis=1), 1)
]


@pytest.mark.parametrize("name", UNIT_LENGTH)
def test_a_stored_set_gives_the_reference_accuracy(name: str) -> None:
    expected, embeddings = golden_files.arrays(name), golden_embeddings(name)
    pairs = stored_pairs(expected["issame"], "set")
    result = pairs.score(embeddings, replicates=0)
    np.testing.assert_array_equal(result.accuracy.accuracies, expected["accuracy"])
    assert pairs.score(embeddings, replicates=10).intervals.by == "pair"
    if "openvino_log" in golden_files.entry(name):
        assert pairs.openvino_lfw(embeddings).lines() == golden_files.entry(name)["openvino_log"]
