"""What the processes of `bounded` need, imported once; each of them begins as a copy."""

import marginface.readers.verification
import marginface.weights  # noqa: F401
from marginface.untrusted import read_lines


def count_lines(path):
    return sum(1 for _ in read_lines(path))
