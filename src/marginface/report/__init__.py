"""Results to read: the terminal table, JSON and one self-contained HTML page. Floor 2; used by `evaluate`, `cli`."""

from marginface.report.page import Provenance, write_report
from marginface.report.table import latex_table, markdown_table, print_table

__all__ = ["Provenance", "latex_table", "markdown_table", "print_table", "write_report"]
