"""Lets long values wrap on the pages of optuna-dashboard.

Version 0.21 keeps each user attribute of a trial on one line. The learning curve of a training is 300 characters and more, so the
whole page became three screens wide. Can go when the dashboard wraps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_HEAD_END = b"</head>"
_STYLE = b"<style>p.MuiTypography-body1{white-space:normal!important;overflow-wrap:anywhere}</style>"


def with_wrapped_values(app: WSGIApplication) -> WSGIApplication:
    """Return `app` with a style in its HTML pages; every other answer stays as it is."""

    def styled(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not str(environ.get("PATH_INFO", "")).startswith("/dashboard"):
            return app(environ, start_response)
        begun: list[tuple[str, list[tuple[str, str]], tuple[Any, ...]]] = []

        def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
            begun.append((status, headers, more))
            return _never_written

        parts = app(environ, begin)
        try:
            body = b"".join(parts).replace(_HEAD_END, _STYLE + _HEAD_END, 1)
        finally:
            getattr(parts, "close", lambda: None)()  # a file, which bottle has opened
        status, headers, more = begun[-1]
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(body)))], *more)
        return [body]

    return styled


def _never_written(_: bytes) -> None:
    """Stand in for WSGI's old way of writing, which bottle does not use."""
