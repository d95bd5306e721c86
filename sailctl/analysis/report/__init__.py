"""Output of a comparison: one HTML page, and tables for a terminal, a README and a paper."""

from __future__ import annotations

from sailctl.analysis.report.formats import latex, markdown, text
from sailctl.analysis.report.page import write_report
from sailctl.analysis.report.tables import Table, contrasts_table, performance_table, stability_table

__all__ = [
    "Table",
    "contrasts_table",
    "latex",
    "markdown",
    "performance_table",
    "stability_table",
    "text",
    "write_report",
]
