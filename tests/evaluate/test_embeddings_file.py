"""Somebody's embeddings: read, or refused in one sentence, however damaged."""

from pathlib import Path

import numpy as np
import pytest

from marginface.errors import InputError
from marginface.evaluate.embeddings_file import EmbeddingsFile
from marginface.evaluate.images import Images


def images(*keys: str) -> Images:
    return Images("set", keys, lambda positions: [])


def test_rows_are_found_by_name_and_get_their_length_back(tmp_path: Path) -> None:
    path, unit = tmp_path / "e.npz", np.eye(3)
    np.savez(path, embeddings=unit, norms=np.array([2.0, 3.0, 4.0]), keys=np.array([b"a/1.jpg", b"b\\2", b"."]))
    found = EmbeddingsFile(path).of(images("b/2.png", "a/1.png"))
    np.testing.assert_array_equal(found.original, [[0, 3, 0], [2, 0, 0]])
    assert found.flipped is None


@pytest.mark.parametrize("content", [np.array([{}]), np.array([[None] * 3])])
def test_objects_are_not_unpickled(tmp_path: Path, content: np.ndarray) -> None:
    np.savez(tmp_path / "e.npz", embeddings=content)
    with pytest.raises(InputError, match="is not an npz of arrays"):
        EmbeddingsFile(tmp_path / "e.npz")
    np.save(tmp_path / "e.npy", np.eye(3))
    with pytest.raises(InputError, match="is not an npz of arrays"):
        EmbeddingsFile(tmp_path / "e.npy")
