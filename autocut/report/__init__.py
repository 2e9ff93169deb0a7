"""What people look at: the dashboard with its notes and plots."""

from __future__ import annotations

from autocut.report.publish import Publisher, publish

__all__ = ["Publisher", "publish"]
