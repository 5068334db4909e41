"""The report for people: one self-contained HTML file, made from the record of a run and its logs alone."""

from harness.report.html.report_file import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
