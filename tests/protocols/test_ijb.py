"""IJB figures against the numbers of eight public scripts, and small malformed sets."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import golden_files
from marginface.errors import InputError
from marginface.metrics.identification import legacy_tpir, open_set_tpir, search
from marginface.metrics.reference_roc import nearest_tar, reference_roc
from marginface.metrics.scores import pair_scores
from marginface.metrics.templates import POOLINGS, Pooling, Templates
from marginface.protocols.ijb import Ijb, identification_table, read_ijb, tpr_table

NAMES = golden_files.entries("ijb/")
Golden = tuple[Ijb, dict[str, np.ndarray], np.ndarray, np.ndarray]


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The set, the expected arrays, and the embeddings of the images and of their mirror images."""
    folder = golden_files.FOLDER / golden_files.entry(request.param)["dataset_dir"].split(" ")[0]
    name = folder.parent.name if folder.name == "meta" else folder.name
    arrays = golden_files.arrays(request.param)
    half = arrays["img_feats"].shape[1] // 2
    ijb = read_ijb(folder.parent if folder.name == "meta" else folder, name, tmp_path_factory.mktemp("cache"))
    return ijb, arrays, arrays["img_feats"][:, :half], arrays["img_feats"][:, half:]


def tprs(ijb: Ijb, templates: Templates, fprs: np.ndarray) -> list[float | None]:
    first, second = (np.searchsorted(templates.ids, side) for side in ijb.meta.pairs.T)
    roc = reference_roc(pair_scores(templates.vectors, first, second), ijb.meta.same)
    return [nearest_tar(roc, fpr).tar for fpr in fprs]


def test_templates_scores_and_roc(golden: Golden) -> None:
    ijb, expected, original, flipped = golden
    templates = ijb.templates(original, flipped)
    np.testing.assert_array_equal(templates.ids, expected["unique_templates"])
    np.testing.assert_allclose(templates.vectors, expected["template_feats"], rtol=0, atol=1e-12)
    assert templates.images.sum() == len(original)
    result = ijb.verification(templates, replicates=0)
    np.testing.assert_allclose(result.scores, expected["scores"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result.trials.same, expected["labels"] == 1)
    np.testing.assert_array_equal(result.roc.far[::-1], expected["roc_fpr_descending"])
    np.testing.assert_array_equal(result.roc.tar[::-1], expected["roc_tpr_descending"])
    assert result.auc == pytest.approx(float(expected["N1D1F1_auc"]), abs=1e-9)


def test_every_pooling_gives_the_reference_table(golden: Golden) -> None:
    ijb, expected, original, flipped = golden
    for name in [key.removesuffix("_table_row") for key in expected if key.endswith("_table_row")]:
        norms, detector, flip = (letter == "1" for letter in name[1::2])
        pooling = Pooling(norms, detector, flip)
        assert pooling.name == name
        result = ijb.verification(ijb.templates(original, flipped, pooling), "m", replicates=0)
        np.testing.assert_array_equal([tar.tar for tar in result.tars], expected[f"{name}_tpr_at_fpr"])
        assert result.auc == pytest.approx(float(expected[f"{name}_auc"]), abs=1e-9)
        row = tpr_table([result]).splitlines()[2].split("|")[2:-1]
        assert [cell.strip() for cell in row] == expected[f"{name}_table_row"].tolist()
        # the other script means the opposite by its N
        other = f"ijb_evals_N{not norms:d}{name[2:]}_tpr_at_fpr"
        np.testing.assert_array_equal([tar.tar for tar in result.tars], expected[other])


def test_magface_media_pooling(golden: Golden) -> None:
    ijb, expected, original, _ = golden
    for quality, media in ((0, "unit"), (1, "mean")):
        templates = ijb.templates(original, None, Pooling(detector=False, flip=False, media=media))
        found = tprs(ijb, templates, expected["fpr_targets"])
        np.testing.assert_array_equal(found, expected[f"magface_qlt{quality}_tpr_at_fpr"])
        vectors = expected[f"magface_qlt{quality}_template_feats_first10"]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(templates.vectors[:10], vectors, atol=1e-6)


def test_adaface_fusions(golden: Golden) -> None:
    ijb, expected, original, flipped = golden
    for fusion, word in (("norm_weighted_avg", "adaface-norm-weighted"), ("pre_norm_vector_add", "adaface")):
        templates = ijb.templates(original, flipped, POOLINGS[word])
        found = tprs(ijb, templates, expected["fpr_targets"])
        np.testing.assert_array_equal(found, expected[f"adaface_{fusion}_tpr_at_fpr"])
        result = ijb.identification(templates, replicates=0)
        np.testing.assert_allclose(list(result.ranks.values()), expected[f"adaface_{fusion}_rank_1_5_10"], rtol=1e-12)
        rows = expected[f"adaface_{fusion}_far_recall_threshold"]
        np.testing.assert_allclose([rate.tpir for rate in result.rates["legacy"]], rows[:, 1], atol=1e-10)


def test_identification_in_both_definitions(golden: Golden) -> None:
    ijb, expected, original, flipped = golden
    templates = ijb.templates(original, flipped)
    result = ijb.identification(templates)
    np.testing.assert_allclose(list(result.ranks.values()), expected["id_rank_1_5_10"], rtol=1e-12)
    for rate, row in zip(result.rates["legacy"], expected["id_far_recall_threshold"], strict=True):
        assert rate.fpir == row[0]
        assert rate.tpir == pytest.approx(row[1], abs=1e-10)
        assert rate.threshold == pytest.approx(row[2], abs=1e-6)
    names = [name for name in result.rates if name.startswith("open-set")]
    assert len(names) == 3
    for rates in result.rates.values():
        assert all((rate.reason is not None) == (rate.fpir * rate.trials < 1) for rate in rates[:3]) or len(rates) == 3
    assert list(result.cmc[[0, 4, 9]]) == list(result.ranks.values())
    assert f"{100 * expected['id_rank_1_5_10'][0]:.3f}" in identification_table([result])
    low, high = result.intervals["rank 1"].low, result.intervals["rank 1"].high
    assert low <= result.ranks[1] <= high


def test_open_set_figures_of_each_gallery(golden: Golden) -> None:
    ijb, expected, original, flipped = golden
    templates = ijb.templates(original, flipped)
    probes, subjects = templates.vectors[np.searchsorted(templates.ids, ijb.meta.probes[:, 0])], ijb.meta.probes[:, 1]
    curves = []
    for number, rows in enumerate((ijb.meta.gallery1, ijb.meta.gallery2), start=1):
        gallery = templates.vectors[np.searchsorted(templates.ids, rows[:, 0])]
        found = search(probes, gallery, subjects, rows[:, 1])
        counts = [np.sum(found.ahead[found.mated] < rank) for rank in (1, 5, 10)]
        assert counts == expected[f"open_g{number}_top_1_5_10_counts"].tolist()
        assert found.mated.sum() == expected[f"open_g{number}_mated_probes"]
        rates = open_set_tpir(found, expected["open_fpir_targets"])
        np.testing.assert_allclose([rate.tpir for rate in rates], expected[f"open_g{number}_tpir"], rtol=1e-12)
        np.testing.assert_allclose([rate.threshold for rate in rates], expected[f"open_g{number}_threshold"], atol=1e-6)
        curves.append([rate.tpir for rate in open_set_tpir(found, expected["open_curve_fars"])])
    np.testing.assert_allclose(np.mean(curves, axis=0), expected["open_curve_mean_tpir"], rtol=1e-12)


def test_legacy_gallery_as_the_scripts_build_it(golden: Golden) -> None:
    _, expected, _, _ = golden
    found = search(
        expected["id_probe_feats"],
        expected["id_gallery_feats"],
        expected["id_probe_subjects"],
        expected["id_gallery_subjects"],
        top=len(expected["id_probe_feats"]),
    )
    rows = expected["id_far_recall_threshold"]
    rates = legacy_tpir(found.mate, found.top_others, rows[:, 0])
    np.testing.assert_allclose([rate.tpir for rate in rates], rows[:, 1], atol=1e-10)


def test_intervals_enclose_the_figures(golden: Golden) -> None:
    ijb, _, original, flipped = golden
    result = ijb.verification(ijb.templates(original, flipped))
    checked = [tar for tar in result.tars if not tar.reason]
    assert checked
    for tar in checked:
        bounds = result.intervals.tar[tar.far]
        assert bounds.low <= tar.tar <= bounds.high
        assert bounds.high - bounds.low > 0.01
    assert set(result.intervals.tar) == {tar.far for tar in checked}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of one set that tests may damage."""
    shutil.copytree(golden_files.FOLDER / "ijb" / "IJBB", tmp_path / "IJBB")
    return tmp_path


def damage(root: Path, file: str, change: tuple[str, str]) -> None:
    path = root / "IJBB" / "meta" / f"ijbb_{file}"
    lines = path.read_text().splitlines()
    lines[int(change[0])] = change[1]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "line", "content", "message"),
    [
        ("template_pair_label.txt", "7", "12 13", "line 8: expected 3 whole numbers, found '12 13'"),
        ("template_pair_label.txt", "7", "12 x3 1", "line 8: expected 3"),
        ("template_pair_label.txt", "7", "12 13 1 5", "line 8: expected 3"),
        ("template_pair_label.txt", "7", "12 -13 1", "line 8: expected 3"),
        ("template_pair_label.txt", "7", "12 13 2", r"line 8: the label must be 0 or 1 \(1 are not\)"),
        ("face_tid_mid.txt", "3", "1.jpg 12", "line 4 does not"),
        ("face_tid_mid.txt", "3", "absent.jpg 12 13", r"different images in line 4 \(absent.jpg"),
        ("name_5pts_score.txt", "2", "1.jpg a 1 1 1 1 1 1 1 1 1 1", "could not convert"),
        ("1N_probe_mixed.csv", "1", "x,y", "must begin with a template and a subject"),
    ],
)
def test_damaged_meta_files_are_refused_by_line(copied: Path, file: str, line: str, content: str, message: str) -> None:
    damage(copied, file, (line, content))
    with pytest.raises(InputError, match=message):
        read_ijb(copied, "IJBB", copied / "cache")


def test_missing_files_templates_and_mates_are_named_and_counted(copied: Path) -> None:
    ijb = read_ijb(copied, "IJBB", copied / "cache")
    embeddings = np.random.default_rng(0).normal(size=(len(ijb.images), 8)).astype(np.float32)
    damage(copied, "template_pair_label.txt", ("0", "99999999 1 0"))
    other = read_ijb(copied, "IJBB", copied / "cache")
    with pytest.raises(InputError, match=r"template_pair_label.txt names \d templates without an image"):
        other.verification(other.templates(embeddings, embeddings))
    damage(copied, "1N_probe_mixed.csv", ("1", f"{ijb.meta.probes[0, 0]},99999,x"))
    damage(copied, "template_pair_label.txt", ("0", f"{ijb.meta.pairs[0, 0]} {ijb.meta.pairs[0, 1]} 0"))
    rows = (copied / "IJBB" / "meta" / "ijbb_1N_probe_mixed.csv").read_text().splitlines()
    own = [row for row in rows[1:] if int(row.split(",")[0]) != ijb.meta.probes[0, 0]]
    (copied / "IJBB" / "meta" / "ijbb_1N_probe_mixed.csv").write_text("\n".join([rows[0], rows[1], *own]) + "\n")
    other = read_ijb(copied, "IJBB", copied / "cache")
    with pytest.raises(InputError, match=r"1 of \d+ probes do not have exactly one mate .* subject 99999 with 0"):
        other.identification(other.templates(embeddings, embeddings))
    with pytest.raises(InputError, match="holds no IJBC/meta"):
        read_ijb(copied / "cache", "IJBC")
    (copied / "IJBB" / "meta" / "ijbb_1N_gallery_S2.csv").unlink()
    with pytest.raises(InputError, match="1 meta files of IJBB are missing"):
        read_ijb(copied, "IJBB", copied / "cache")


def test_unusable_embeddings_are_refused(copied: Path) -> None:
    ijb = read_ijb(copied, "IJBB", copied / "cache")
    embeddings = np.random.default_rng(0).normal(size=(len(ijb.images), 8)).astype(np.float32)
    with pytest.raises(InputError, match="260 images, there are 259"):
        ijb.templates(embeddings[:-1], None)
    with pytest.raises(InputError, match="give them, or pool without the flip"):
        ijb.templates(embeddings, None)
    with pytest.raises(InputError, match="mirror images are"):
        ijb.templates(embeddings, embeddings[:, :4])
    embeddings[5] = np.nan
    with pytest.raises(InputError, match=r"1 of 77 templates are zero or not finite .first: template"):
        ijb.templates(embeddings, embeddings)


def test_the_cache_is_used_and_damage_to_it_is_survived(copied: Path) -> None:
    cache = copied / "cache"
    first = read_ijb(copied, "IJBB", cache)
    (kept,) = cache.iterdir()
    stamp = kept.stat().st_mtime_ns
    again = read_ijb(copied, "IJBB", cache)
    assert kept.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.meta.pairs, again.meta.pairs)
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(read_ijb(copied, "IJBB", cache).points, first.points)
