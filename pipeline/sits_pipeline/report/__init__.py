"""The report of a dataset, for people: one HTML file without scripts, fonts or pictures from elsewhere."""

from sits_pipeline.report.facts import ReportFacts
from sits_pipeline.report.page import render_report, replace_sections

__all__ = ["ReportFacts", "render_report", "replace_sections"]
