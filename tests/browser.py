"""Debian's Chromium without a window, for the tests of pages. They are skipped where it, playwright or axe-core is missing."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@dataclass
class Tab:
    """A page, and what it did that a test may forbid."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium():
    """Start Chromium, or skip the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'autocut[test]'")
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def tab(browser, **options):
    """Open a page of its own that notes its requests, its errors and its warnings."""
    context = browser.new_context(**DESKTOP | options)
    opened = Tab(context.new_page())
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.on("console", lambda line: line.type in ("error", "warning") and opened.complaints.append(line.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    yield opened
    context.close()


def axe_violations(page) -> list[str]:
    """Run axe-core on a page and return what it finds. The policy of the page forbids a script tag, so it is evaluated."""
    page.evaluate(axe_source())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found for node in rule["nodes"]]


def axe_source() -> str:
    """Return the text of axe-core, or skip the test."""
    folder = os.environ.get("AUTOCUT_AXE")
    file = Path(folder or ".") / "node_modules" / "axe-core" / "axe.min.js"
    if not file.is_file():
        pytest.skip("needs axe-core: npm install axe-core, and AUTOCUT_AXE names the folder that has node_modules")
    return file.read_text()
