"""The report of a study: one HTML file that a person reads, prints, or sends to a colleague."""

from __future__ import annotations

from autocut.report.page.contents import Recommendation, Section
from autocut.report.page.render import render

__all__ = ["Recommendation", "Section", "render"]
