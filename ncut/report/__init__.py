"""Views of a measurement: text, JSON, data frame, pictures and HTML."""

from ncut.report.html import html_page
from ncut.report.profile import Profile
from ncut.report.report import Report
from ncut.report.verdict import Verdict
from ncut.report.wording import sentence

__all__ = ["Profile", "Report", "Verdict", "html_page", "sentence"]
