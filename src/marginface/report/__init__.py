"""Results to read: the terminal table, JSON and one self-contained HTML page. Floor 2; used by `evaluate`, `cli`."""

from marginface.report.page import Provenance, write_report
from marginface.report.pictures import PictureOf
from marginface.report.sheets import (
    Sheet,
    best_f1_sheet,
    checkpoints_sheet,
    comparison_sheet,
    figures_sheet,
    folds_sheet,
    group_sheet,
    print_searches,
    print_sheet,
    search_sheet,
)
from marginface.report.table import latex_table, markdown_table, print_table

__all__ = [
    "PictureOf",
    "Provenance",
    "Sheet",
    "best_f1_sheet",
    "checkpoints_sheet",
    "comparison_sheet",
    "figures_sheet",
    "folds_sheet",
    "group_sheet",
    "latex_table",
    "markdown_table",
    "print_searches",
    "print_sheet",
    "print_table",
    "search_sheet",
    "write_report",
]
