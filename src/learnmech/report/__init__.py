"""The HTML report: one file that opens anywhere, without a network."""

from learnmech.report.html import render_report, write_report

__all__ = ["render_report", "write_report"]
