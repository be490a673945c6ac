"""Messages are one sentence on one line, whatever a stranger's file is called or holds."""

import pytest

from marginface.errors import InputError


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_a_line_break_in_a_name_is_none_in_the_message(end: str) -> None:
    assert str(InputError(f"a{end}b.tar: it is empty")) == "a b.tar: it is empty"


def test_a_table_stands_below() -> None:
    assert str(InputError("these do not fit:", "a  b\nc  d")) == "these do not fit:\na  b\nc  d"
