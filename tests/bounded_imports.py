"""What the processes of `bounded` need, imported once; each of them begins as a copy."""

from pathlib import Path

import h5py  # noqa: F401
import pyarrow.parquet  # noqa: F401

import marginface.evaluate.embeddings_file
import marginface.evaluate.saved
import marginface.readers.verification
import marginface.training.status
import marginface.weights  # noqa: F401
from marginface.loading.decode import decode
from marginface.readers import open_reader
from marginface.readers.base import Record
from marginface.untrusted import LARGEST_IMAGE, read_bytes, read_lines


def count_lines(path):
    return sum(1 for _ in read_lines(path))


def read_first(path):
    """The first image of a set, as it is stored."""
    reader = open_reader(path)
    assert len(reader.labels) == len(reader)
    return reader.read([0])[0].image


def decode_file(path):
    return decode(Record(read_bytes(Path(path), LARGEST_IMAGE), 0, str(path))).shape
