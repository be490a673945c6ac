"""IJB from loose crops on disk: alignment from the lists, rows a pooling, and images that are missing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ijb_set import write_ijb
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.evaluate import Benchmark, open_benchmark
from marginface.evaluate.embeddings import Embeddings, embed_images
from marginface.faces.template import crop_face
from marginface.loading.decode import decode
from marginface.metrics.result import VerificationResult
from marginface.metrics.search_result import IdentificationResult
from marginface.readers.base import Record


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def opened(root: Path, name: str = "IJBC", words: str = "") -> Benchmark:
    return open_benchmark(f"{name.lower()}:{root}{words}")


def test_both_sets_give_both_protocols(cached: Path) -> None:
    torch.manual_seed(0)
    model = Embedder.create(ModelConfig("small", 16, {"width": 4}))
    for name in ("IJBB", "IJBC"):
        benchmark = opened(write_ijb(cached, name), name)
        verification, search = benchmark.score(embed_images(model, benchmark.images), "m", replicates=20)
        assert isinstance(verification, VerificationResult)
        assert isinstance(search, IdentificationResult)
        assert (verification.benchmark, search.benchmark) == (f"{name} 1:1", f"{name} 1:N")
        assert verification.model == search.model == "m"
        assert (verification.roc.genuines, verification.roc.impostors) == (16, 112)
        assert (search.probes, search.gallery, search.people) == (16, 8, 8)
        assert verification.auc > 0.7  # patterns of one person are alike, even to an untrained network
        assert benchmark.picture(3).shape == (112, 112, 3)


def test_crops_are_aligned_by_their_points(cached: Path) -> None:
    benchmark = opened(write_ijb(cached))
    path = cached / "IJBC" / "loose_crop" / "2.jpg"
    points = np.loadtxt(cached / "IJBC" / "meta" / "ijbc_name_5pts_score.txt", usecols=range(1, 11))[1].reshape(5, 2)
    expected = crop_face(decode(Record(path.read_bytes(), 0, "")), points.astype(np.float32))
    np.testing.assert_array_equal(benchmark.images.take([1], 112)[0], expected)


def test_a_row_a_pooling(cached: Path) -> None:
    benchmark = opened(write_ijb(cached), words=",pooling=N1D1F1+N0D0F1+adaface+magface+magface-quality")
    vectors = np.random.default_rng(0).normal(size=(2, len(benchmark.images), 8)).astype(np.float32)
    found = benchmark.score(Embeddings(*vectors), "m", replicates=0)
    rows = [one.model for one in found[::2]]
    assert rows == ["m N1D1F1", "m N0D0F1", "m N1D0F1", "m N1D0F0-unit-media", "m N1D0F0"]
    assert [one.model for one in found[1::2]] == rows
    single = opened(cached).score(Embeddings(vectors[0]), "given", replicates=0)
    assert single[0].model == "given N1D1F0"  # nobody gave a second pass: not the usual row
    with pytest.raises(InputError, match=r"unknown pooling 'N2'; give N1D1F1 .* magface-quality"):
        opened(cached, words=",pooling=N2")


def test_missing_crops_are_counted(cached: Path) -> None:
    benchmark = opened(write_ijb(cached))
    for number in (4, 9):
        (cached / "IJBC" / "loose_crop" / f"{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"IJBC: 2 of its 56 images are not there \(first: .*4\.jpg"):
        benchmark.images.check()
