"""What people look at: the dashboard, and the notes and plots on it."""

from __future__ import annotations

from autocut.report.publish import Publisher, publish

__all__ = ["Publisher", "publish"]
