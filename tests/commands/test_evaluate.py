"""`marginface evaluate` on every kind of benchmark, as typed; and what it says to bad input."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from evaluation_case import refused, save_model, write_people, write_stored
from ijb_set import write_ijb
from marginface import cli
from marginface.embedder import Embedder
from marginface.evaluate import embeddings, open_benchmark
from marginface.faces.template import ARCFACE_112
from marginface.metrics.variants import magface_accuracy, openvino_lfw
from training_ranks import command, join, processes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and small sets of every kind, which tests may not change."""
    root = tmp_path_factory.mktemp("sets")
    save_model(root / "model")
    people = write_people(root / "people", people=8)
    write_stored(root / "stored.bin", people)
    write_ijb(root / "ijb")
    photos = write_people(root / "lfw" / "images", people=8, images=2, size=160)
    numbers = "\t".join(f"{value:.1f}" for value in (ARCFACE_112 + 24).ravel())
    keys = sorted(path.relative_to(photos) for path in photos.glob("*/*"))
    (root / "lfw" / "lfw_landmark.txt").write_text("".join(f"{key}\t{numbers}\n" for key in keys))
    lines = ["2\t2", *pair_lines(0), *pair_lines(4)]
    (root / "lfw" / "pairs.txt").write_text("\n".join(lines) + "\n")
    write_tinyface(root / "tinyface", people)
    return root


def pair_lines(first: int) -> list[str]:
    same = [f"p{first + i:02d}\t1\t2" for i in range(2)]
    return same + [f"p{first + i:02d}\t1\tp{first + i + 2:02d}\t2" for i in range(2)]


def write_tinyface(root: Path, people: Path) -> None:
    testing, aligned = root / "tinyface" / "Testing_Set", root / "aligned_pad_0.1_pad_high"
    (testing / "Gallery_Distractor").mkdir(parents=True)
    aligned.mkdir()
    for number, folder in enumerate(sorted(people.iterdir()), start=1):
        for image, path in enumerate(sorted(folder.iterdir())[:2], start=1):
            shutil.copy(path, aligned / f"{number}_{image}.jpg")
    for name, key, image in (("probe_img_ID_pairs", "probe_set", 1), ("gallery_match_img_ID_pairs", "gallery_set", 2)):
        cells = np.empty((6, 2), object)
        cells[:, 0], cells[:, 1] = [f"{n}_{image}.jpg" for n in range(1, 7)], [float(n) for n in range(1, 7)]
        savemat(testing / f"{name}.mat", {key: cells})
    (testing / "Gallery_Distractor" / "7_1.jpg").touch()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def evaluated(*words: str) -> list[dict[str, Any]]:
    cli.main(["evaluate", *words, "--json=r.json", "--report=r.html", "--overwrite"])
    found: list[dict[str, Any]] = json.loads(Path("r.json").read_text())["results"]
    return found


def test_every_kind_at_once(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [f"{made}/stored.bin", f"lfw:{made}/lfw", f"ijbc:{made}/ijb", f"tinyface:{made}/tinyface"]
    words += [f"closedset:{made}/people,enrol=2", f"pairs:{made}/people"]
    found = evaluated(f"{made}/model", "--benchmark", *words)
    assert [row["benchmark"] for row in found] == [
        "stored", "lfw", "IJBC 1:1", "IJBC 1:N", "TinyFace", "people closed set", "people",
    ]  # fmt: skip
    shown = capsys.readouterr().out
    for text in ("Accuracy-Flip", "OpenVINO", "Rank\u00a020", "macro F1", "open-set", "| **correct rank-1 [%]** |"):
        assert text in shown
    content = json.loads(Path("r.json").read_text())
    assert content["command"].startswith("marginface evaluate ")
    assert set(content["checksums"]) == {"stored", "lfw", "IJBC", "TinyFace", "people closed set", "people"}
    assert {"python", "torch"} < set(content["versions"])
    page = Path("r.html").read_text()
    assert len(page) < 5_000_000
    assert page.count("CMC") >= 3
    assert not list((tmp_path / "cache" / "marginface" / "embeddings").iterdir())  # nothing is left behind


def test_xnorm_is_that_of_insightface(made: Path) -> None:
    (row,) = evaluated(f"{made}/model", "--benchmark", f"{made}/stored.bin")
    model, benchmark = Embedder.load(made / "model"), open_benchmark(f"{made}/stored.bin")
    images = benchmark.images.take(range(len(benchmark.images)), 112)
    passes = [np.concatenate(list(model.raw([x], flip=False))) for x in (images, images[:, :, ::-1].copy())]
    norms = [np.linalg.norm(vector) for one in passes for vector in one]
    assert row["xnorm"] == pytest.approx(sum(norms) / len(norms), rel=1e-6)
    assert row["xnorm"] != pytest.approx(np.linalg.norm(passes[0] + passes[1], axis=1).mean(), rel=0.1)


def test_magface_accuracy_is_a_figure_more(made: Path) -> None:
    words = [f"{made}/model", "--flip=false", "--magface=true", "--benchmark", f"{made}/stored.bin"]
    row, _ = evaluated(*words, f"tinyface:{made}/tinyface")
    model, benchmark = Embedder.load(made / "model"), open_benchmark(f"{made}/stored.bin")
    vectors, pairs = embeddings.embed_images(model, benchmark.images, flip=False).original, benchmark.pairs
    expected, _ = magface_accuracy(vectors, pairs.first, pairs.second, pairs.same, pairs.folds)
    assert row["figures"]["MagFace accuracy"] == expected.mean
    assert row["figures"]["MagFace threshold"] == pytest.approx(expected.threshold)
    assert "MagFace accuracy std" in Path("r.html").read_text()


def test_embeddings_of_anybody(made: Path) -> None:
    cli.main(["embed", f"{made}/model", f"{made}/people", "-o", "e.npz"])
    (own,) = evaluated(f"{made}/model", "--benchmark", f"pairs:{made}/people")
    (given,) = evaluated("--embeddings=e.npz", "--benchmark", f"pairs:{made}/people")
    assert given["model"] == "e.npz"
    assert given["accuracy"]["mean"] == own["accuracy"]["mean"]
    assert given["auc"]["value"] == pytest.approx(own["auc"]["value"], abs=1e-3)  # `embed` goes the fast way
    # the passes of the mirror images too, in the benchmark's order: everything IJB can be pooled by
    model, benchmark = Embedder.load(made / "model"), open_benchmark(f"ijbc:{made}/ijb")
    vectors = embeddings.embed_images(model, benchmark.images)
    np.savez("ijb.npz", embeddings=vectors.original, flipped=vectors.flipped)
    both = evaluated("--embeddings=ijb.npz", "--benchmark", f"ijbc:{made}/ijb,pooling=N1D1F1+magface")
    own_both = evaluated(f"{made}/model", "--benchmark", f"ijbc:{made}/ijb,pooling=N1D1F1+magface")
    for a, b in zip(both, own_both, strict=True):
        assert a | {"model": ""} == b | {"model": ""}


def test_degraded_images_are_rows_beside_the_clean_one(made: Path) -> None:
    words = ["--degrade", "blur:8", "jpeg:5", "downscale:8", "--baselines=true"]
    rows = evaluated(f"{made}/model", "--benchmark", f"{made}/stored.bin", *words)
    names = [row["model"].replace(str(made), "") for row in rows]
    wanted = ["pixels", "untrained network", "/model blur:8", "/model jpeg:5", "/model downscale:8", "/model"]
    assert names == wanted
    assert len({row["accuracy"]["threshold"] for row in rows}) > 3


def test_all_checkpoints_in_the_order_of_their_numbers(made: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("checkpoints/epoch10", "checkpoints/epoch9", "checkpoints/best", "model")):
        save_model(tmp_path / "run" / name, seed)
    rows = evaluated("--all-checkpoints=run", "--benchmark", f"{made}/stored.bin")
    assert [row["model"] for row in rows] == ["epoch9", "epoch10", "best", "model"]


def test_all_checkpoints_are_one_table(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each weight once, whatever names it has, and its accuracy on every set beside it."""
    for seed, name in ((1, "checkpoints/step-5"), (2, "checkpoints/step-10"), (2, "checkpoints/best"), (2, "model")):
        save_model(tmp_path / "run" / name, seed)
    rows = evaluated("--all-checkpoints=run", "--benchmark", f"{made}/stored.bin", f"pairs:{made}/people")
    assert [row["model"] for row in rows] == 2 * ["step-5", "step-10 (best, model)"]
    told = capsys.readouterr().out
    table = [line.split() for line in told[told.index("Models of the run") :].splitlines()]
    assert table[2] == ["Model", "stored", "people"]
    means = [f"{100 * row['accuracy']['mean']:.2f}" for row in rows]
    assert (table[4][0], table[4][1], table[4][4]) == ("step-5", means[0], means[2])
    assert (table[5][:3], table[5][3], table[5][6]) == (["step-10", "(best,", "model)"], means[1], means[3])
    assert "Threshold" not in told


def test_groups_and_quality_from_a_csv(made: Path) -> None:
    names = [f"p{person:02d}" for person in range(8)]
    Path("c.csv").write_text(
        "name,sex,age\n" + "".join(f"{n},{'fm'[i % 2]},{20 + 3 * i}\n" for i, n in enumerate(names))
    )
    words = ["--csv=c.csv", "--by", "sex", "--reject", "norm", "age", "--reject-fmr=0.2"]
    evaluated(f"{made}/model", "--benchmark", f"pairs:{made}/people", *words)
    content = json.loads(Path("r.json").read_text())
    (table,) = content["groups"]
    assert [group["group"] for group in table["groups"]] == ["f", "m"]
    assert [curve["quality"].partition(",")[0] for curve in content["error_versus_reject"]] == ["norm", "age"]
    page = Path("r.html").read_text()
    assert "By sex, " in page
    assert "Error versus reject" in page


def test_the_roc_file_is_openvinos(made: Path) -> None:
    (row,) = evaluated(f"{made}/model", "--benchmark", f"lfw:{made}/lfw", "--roc-file=roc.txt")
    lines = np.loadtxt("roc.txt")
    assert lines.shape == (400, 2)
    model, benchmark = Embedder.load(made / "model"), open_benchmark(f"lfw:{made}/lfw")
    (result,) = benchmark.score(embeddings.embed_images(model, benchmark.images), "m", 0)
    found = openvino_lfw(result.distances / 2, result.trials.same, 2)
    np.testing.assert_array_equal(lines, np.stack([found.tar, found.far], axis=1))
    assert row["figures"]["OpenVINO AUC"] == pytest.approx(found.auc)


@pytest.mark.slow  # three times two processes
def test_two_processes_find_the_same_as_one_and_one_speaks(made: Path, tmp_path: Path) -> None:
    crowd = write_people(tmp_path / "crowd", people=24)  # more than one chunk

    def processed(size: int) -> tuple[list[int | None], list[str]]:
        words = ["evaluate", f"{made}/model", f"--json={tmp_path}/{size}.json", f"--scratch={tmp_path}/scratch"]
        words += [f"--report={tmp_path}/{size}.html", "--baselines=true", "--degrade", "blur:3"]
        words += ["--benchmark", f"pairs:{crowd}"]
        codes = join(processes(size, command, tmp_path / f"log{size}", words))
        return codes, [(tmp_path / f"log{size}.{rank}").read_text() for rank in range(size)]

    assert processed(1)[0] == [0]
    codes, said = processed(2)
    assert codes == [0, 0], said
    alone, shared = (json.loads((tmp_path / f"{size}.json").read_text())["results"] for size in (1, 2))
    assert [row["model"] for row in shared][:2] == ["pixels", "untrained network"]
    assert alone == shared
    assert said[0].count("every threshold tried") == 1
    assert said[1] == ""
    (crowd / "p23" / "p23_0004.jpg").write_bytes(b"no image")  # in the share of the second process
    (tmp_path / "log2.0").unlink()
    codes, said = processed(2)
    assert codes == [2, 2]
    assert "Traceback" not in "".join(said)
    assert "".join(said).count("1 of its images cannot be read") == 1


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_lists_that_do_not_fit_say_what_and_how_many(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "ijb", tmp_path / "ijb")
    shutil.copytree(made / "people", tmp_path / "people")
    meta, model = tmp_path / "ijb" / "IJBC" / "meta", str(made / "model")
    (tmp_path / "people" / "pairs.txt").write_text("2\t1\np00\t1\t7\np01\t1\tp02\t1\np03\t1\t2\np04\t1\tp05\t9\n")
    words = ["evaluate", model, "--benchmark", "pairs:people"]
    assert "2 of the 8 pictures named in people/pairs.txt are not in people (first: p00 7," in refused(words, capsys)
    words = ["evaluate", model, "--benchmark", "ijbc:ijb"]
    (tmp_path / "ijb" / "IJBC" / "loose_crop" / "5.jpg").rename(tmp_path / "5.jpg")
    assert "IJBC: 1 of its 56 images are not there (first: ijb/IJBC/loose_crop/5.jpg)" in refused(words, capsys)
    (tmp_path / "5.jpg").rename(tmp_path / "ijb" / "IJBC" / "loose_crop" / "5.jpg")
    rewrite(meta / "ijbc_template_pair_label.txt", lambda lines: ["999 7 0", *lines[1:]])
    assert "template_pair_label.txt names 1 templates without an image (first: 999)" in refused(words, capsys)
    rewrite(meta / "ijbc_template_pair_label.txt", lambda lines: [line[:-1] + "0" for line in lines[1:]])
    assert "none of the 127 pairs is a 'same' pair" in refused(words, capsys)
    rewrite(meta / "ijbc_template_pair_label.txt", lambda lines: ["7 17 1", *lines])
    rewrite(meta / "ijbc_1N_probe_mixed.csv", lambda lines: [lines[0], "17,99", *lines[2:]])
    assert "1 of 16 probes do not have exactly one mate in the galleries (first: subject 99" in refused(words, capsys)


def test_embeddings_of_a_set_whose_images_are_elsewhere(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "ijb", tmp_path / "ijb")
    shutil.rmtree(tmp_path / "ijb" / "IJBC" / "loose_crop")
    passes = np.random.default_rng(0).normal(size=(2, 56, 8))
    np.savez("e.npz", embeddings=passes[0], flipped=passes[1])
    verification, _ = evaluated("--embeddings=e.npz", "--benchmark", "ijbc:ijb")
    assert verification["benchmark"] == "IJBC 1:1"
    assert "False accepts" not in Path("r.html").read_text()


def test_twice_named_and_cancelled_people_are_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.random.default_rng(0).normal(size=(32, 8))
    vectors[1] = -vectors[0]
    np.savez("e.npz", embeddings=vectors)
    words = ["evaluate", "--embeddings=e.npz", "--benchmark", f"closedset:{made}/people,enrol=2"]
    assert "embeddings of 1 of 8 people cancel out (first: p00)" in refused(words, capsys)
    shutil.copytree(made / "tinyface", tmp_path / "tiny")
    aligned = tmp_path / "tiny" / "aligned_pad_0.1_pad_high"
    (aligned / "more").mkdir()
    shutil.copy(aligned / "1_1.jpg", aligned / "more" / "1_1.jpg")
    words = ["evaluate", f"{made}/model", "--benchmark", "tinyface:tiny"]
    assert "1 of TinyFace's 13 images have several aligned copies" in refused(words, capsys)
    shutil.copytree(made / "lfw", tmp_path / "lfw")
    rewrite(tmp_path / "lfw" / "lfw_landmark.txt", lambda lines: [*lines, lines[0].replace("\t", "\t9", 1)])
    words = ["evaluate", f"{made}/model", "--benchmark", "lfw:lfw"]
    assert "line 17: p00/p00_0001.jpg is there twice, with other points" in refused(words, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.__setitem__((3, 1), np.nan), r"1 of 40 embeddings are not finite \(first: row 3\)"),
        (lambda e: e.__setitem__([3, 5], 0), r"2 of 40 embeddings are zero \(first: row 3\)"),
    ],
)
def test_embeddings_that_cannot_be_used(
    made: Path, capsys: pytest.CaptureFixture[str], change: Callable[[np.ndarray], None], message: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    change(vectors)
    np.savez("e.npz", embeddings=vectors)
    words = ["evaluate", "--embeddings=e.npz", "--benchmark", f"{made}/stored.bin"]
    assert re.search(message, refused(words, capsys))


def test_embeddings_files_that_do_not_fit(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"embeddings": vectors[:39]}, "holds 39 embeddings, stored has 40 images"),
        ({"embeddings": vectors[0]}, "must hold 'embeddings' (N, D), numbers; they are float64 (8,)"),
        ({"embeddings": vectors.astype(str)}, "must hold 'embeddings' (N, D), numbers; they are <U"),
        ({"embeddings": vectors, "flipped": vectors[:, :4]}, "'embeddings' are (40, 8), 'flipped' (40, 4)"),
        ({"vectors": vectors}, "must hold 'embeddings'"),
        ({"embeddings": vectors, "norms": np.ones(3)}, "40 embeddings, but 3 norms"),
        ({"embeddings": vectors, "keys": np.array(["a"] * 40)}, "names 39 images twice (first: a)"),
        (
            {"embeddings": vectors, "keys": np.array([f"stored:{i + 2}" for i in range(40)])},
            "no embedding for 2 of the 40 images of stored (first: stored:0)",
        ),
    ]
    for arrays, message in cases:
        np.savez("e.npz", **arrays)
        words = ["evaluate", "--embeddings=e.npz", "--benchmark", f"{made}/stored.bin"]
        assert message in refused(words, capsys)
    Path("e.npz").write_text("no archive")
    assert "is not an npz of arrays" in refused(words, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{made}/model", "--benchmark", "nowhere.bin"], "'nowhere.bin' is not understood or does not exist; give a"),
        (["{made}/model", "--benchmark", "lfw:nowhere"], "'nowhere' does not exist"),
        (["--benchmark", "{made}/stored.bin"], "give one of: a model's folder, --embeddings"),
        (["{made}/model", "--embeddings=e.npz", "--benchmark", "{made}/stored.bin"], "give one of"),
        (["{made}/model", "--benchmark", "{made}/stored.bin", "pairs:{made}/people", "{made}/stored.bin"], "two bench"),
        (["{made}/model", "--benchmark", "{made}/stored.bin", "--degrade", "blur:0"], "'blur:0' is not understood"),
        (["{made}/model", "--benchmark", "{made}/stored.bin", "--by", "sex"], "column 'sex' is in with --csv FILE"),
        (["{made}/model", "--benchmark", "tinyface:{made}/tinyface", "--roc-file=r.txt"], "is for pairs with folds"),
        (["{made}/model", "--benchmark", "closedset:{made}/people,enrol=4"], "8 of 8 people in"),
        (["{made}/model", "--benchmark", "closedset:{made}/people,enrol=0"], "at least 1, not '0'"),
        (["--all-checkpoints={made}/people", "--benchmark", "{made}/stored.bin"], "holds no models"),
        (["--embeddings=e.npz", "--benchmark", "{made}/stored.bin", "--degrade", "blur:2"], "need a network"),
    ],
)
def test_words_that_cannot_be_used(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refused(["evaluate", *(word.format(made=made) for word in words)], capsys)
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sex\np00,f,x\n", "line 2: 3 cells, the header has 2"),
        ("name,sex\np00,f\np00,m\n", "line 3: 'p00' is there twice"),
        ("name\np00\n", "must hold a header and rows"),
        ("name,age\np00,3\n", "has no column 'sex'; it has age"),
        ("name,sex\nx,f\n", "none of the 32 images has a value in 'sex'; name images as 'p00/p00_0001.jpg'"),
    ],
)
def test_a_csv_that_cannot_be_used(made: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    Path("c.csv").write_text(text)
    words = ["evaluate", f"{made}/model", "--benchmark", f"pairs:{made}/people", "--csv=c.csv", "--by", "sex"]
    assert message in refused(words, capsys)
