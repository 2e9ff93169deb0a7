"""optuna-dashboard on this machine, for one study."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from autocut.errors import InputError, quoted
from autocut.report.best_trials import best_is_front
from autocut.report.dashboard_style import with_wrapped_values
from autocut.study import Study, open_study

HOST = "127.0.0.1"
_HOST_NAMES = (HOST, "localhost")


def serve(study_dir: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Show the study in `study_dir` until Ctrl-C. A search of it may run at the same time.

    Only this machine can reach the dashboard, because it has no passwords.

    Args:
        study_dir: Folder of the study.
        port: TCP port; 0 takes a free one.
        on_ready: Called with the address of the study's page, as soon as the page answers.

    Raises:
        StudyError: The folder has no study.
        InputError: The port is taken or not allowed.
    """
    study = open_study(study_dir)
    try:
        with best_is_front(study), _bind(port, dashboard_app(study)) as server:
            on_ready(f"http://{HOST}:{server.server_port}/dashboard/studies/{study.optuna._study_id}")
            server.serve_forever()
    finally:
        study.close()


def dashboard_app(study: Study) -> WSGIApplication:
    """Return the dashboard of `study` as a WSGI application, guarded by `guard`."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    app: WSGIApplication = wsgi(study.optuna._storage, artifact_store=FileSystemArtifactStore(study.artifacts_dir))
    return guard(with_wrapped_values(app))


def guard(app: WSGIApplication) -> WSGIApplication:
    """Refuse requests that could harm the study: of other host names and sites, and those that delete or rename the study.

    A foreign web page can point its own host name at 127.0.0.1 and read the study through the user's browser, and it can post forms
    to this address under its own name. Renaming copies the trials and deletes the original, so autocut's tables lose their trials.
    A file of a study may come from a stranger too, so the browser runs no script of it, and no other site may read it.
    """

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rpartition(":")[0] or str(environ.get("HTTP_HOST", ""))
        if host not in _HOST_NAMES:
            return _refuse(start_response, f"the dashboard is reached as {HOST}, got {quoted(host)}")
        if _is_of_another_site(environ):
            return _refuse(start_response, "the dashboard answers to its own pages, got a request of another site")
        path, method = str(environ.get("PATH_INFO", "")).rstrip("/"), environ.get("REQUEST_METHOD")
        if path.startswith("/api/studies/") and (path.endswith("/rename") or method == "DELETE"):
            return _refuse(start_response, "autocut keeps this study: delete its folder instead")
        return app(environ, partial(_start_safely, start_response, is_file=path.startswith("/artifacts/")))

    return guarded


def _is_of_another_site(environ: WSGIEnvironment) -> bool:
    """Whether a page of another origin sent the request, other than by a link. A program such as curl sends neither header."""
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE", "none")
    is_link = environ.get("REQUEST_METHOD") == "GET" and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    if origin is not None and origin != f"http://{environ.get('HTTP_HOST')}":
        return True
    return site not in ("same-origin", "none") and not is_link


def _start_safely(
    start_response: StartResponse, status: str, headers: list[tuple[str, str]], *more: Any, is_file: bool
) -> Callable[[bytes], object]:
    """Start a response with headers that keep other sites out. optuna-dashboard 0.21 lets every site read the files."""
    kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
    policy = "sandbox" if is_file else "frame-ancestors 'self'"
    return start_response(status, [*kept, ("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", policy)], *more)


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each request: a browser keeps connections open, and plots must not wait for downloads."""

    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Bind without a look-up of the machine's full name, because a bad resolver would make it hang."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests, because the console is the only writer to the terminal."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Drop the line."""

    def address_string(self) -> str:
        """Return the address without its name, because the look-up may take seconds."""
        return str(self.client_address[0])


def _bind(port: int, app: WSGIApplication) -> WSGIServer:
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_QuietHandler)
    except OverflowError:
        raise InputError(f"port must be from 0 to 65535, got {port}", "--port 0 takes a free one") from None
    except OSError as error:
        reason = "is taken" if _is_taken(port) else f"cannot be used: {error.strerror}"
        raise InputError(f"port {port} {reason}", "--port 0 takes a free one") from error


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _refuse(start_response: StartResponse, reason: str) -> list[bytes]:
    start_response("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]
