"""Reports: one self-contained HTML page, and its summary as Markdown."""

from certus.report.collect import report_data as report_data
from certus.report.data import GalleryItem as GalleryItem
from certus.report.data import Line as Line
from certus.report.data import ReportData as ReportData
from certus.report.data import Sandwich as Sandwich
from certus.report.html import render as render
from certus.report.html import write_report as write_report
from certus.report.markdown import markdown as markdown
