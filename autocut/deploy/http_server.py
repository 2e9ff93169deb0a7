"""Serve a model over HTTP, one call at a time: POST /predict takes and gives JSON, GET /health answers. It needs numpy alone.

Several copies are processes that take requests from one port. A copy whose model is busy leaves the next request to another one.

A bundle's `serve.py` is a copy of this file, with the code that loads the bundle's model below it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

MOST_BYTES = 64 * 2**20
"""A larger request is refused, so that no client fills the memory."""
_LENGTH = re.compile(r"[0-9]{1,20}")  # `str.isdigit` takes a superscript two, and `int` refuses thousands of digits


class Service:
    """A model, what it takes, and the `lock` that lets one call run at a time.

    `predict` takes one array for each input, in the order of `inputs`, and returns the output, a tensor or an array with the batch
    first. `inputs` has dtype and shape by name: the first size is the batch; a free size is given by its least and its most, None
    where any will do. Compiled code may take no other batch than `batch_size`: then calls are cut and padded.
    """

    def __init__(
        self, predict: Callable[[Sequence[Any]], Any], inputs: Mapping[str, tuple[str, Sequence[Any]]], batch_size: int | None
    ) -> None:
        self.inputs = dict(inputs)
        self._predict = predict
        self._batch_size = batch_size
        self.lock = threading.Lock()

    def answer(self, body: bytes) -> dict[str, Any]:
        """Return the answer to a request: ``{"inputs": {"name": [...]}}``, or ``{"inputs": [...]}`` where there is one input.

        Raises:
            ValueError: The request is not of this form, or its arrays have other shapes.
        """
        document = json.loads(body)
        if not isinstance(document, dict) or "inputs" not in document:
            raise ValueError('the request must be a JSON object with "inputs"')
        given = document["inputs"]
        if not isinstance(given, dict):
            given = dict.fromkeys(self.inputs, given) if len(self.inputs) == 1 else {}
        if set(given) != set(self.inputs):
            raise ValueError(f"inputs must be {', '.join(self.inputs)}, got {', '.join(given)[:200] or 'no names'}")
        arrays = [self._array(name, given[name]) for name in self.inputs]
        if len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
            raise ValueError("all inputs must have as many examples, at least one")
        with self.lock:
            return {"output": self._run(arrays)}

    def _array(self, name: str, values: Any) -> Any:
        dtype, shape = self.inputs[name]
        try:
            array = np.asarray(values).astype(dtype, casting="same_kind")  # a fraction is no whole number
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be nested lists of {dtype} numbers, those of one depth equally long") from None
        sizes = zip(array.shape[1:], shape[1:], strict=False)
        if array.ndim != len(shape) or not all(_fits(size, wanted) for size, wanted in sizes):
            wanted = ", ".join(["n", *map(_told, shape[1:])])
            raise ValueError(f"{name} must have the shape [{wanted}], n the batch, got {list(array.shape)}")
        return array

    def _run(self, arrays: Sequence[Any]) -> list[Any]:
        count, size = len(arrays[0]), self._batch_size
        if size is None:
            return list(self._predict(arrays).tolist())
        rows: list[Any] = []
        for start in range(0, count, size):
            part = [array[start : start + size] for array in arrays]
            padded = [np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)]) for array in part]
            rows += self._predict(padded).tolist()[: len(part[0])]
        return rows


def _fits(size: int, wanted: Any) -> bool:
    if isinstance(wanted, int):
        return size == wanted
    least, most = wanted
    return (least is None or size >= least) and (most is None or size <= most)


def _told(wanted: Any) -> str:
    """Return a size as a client reads it: a number, or what a free size may be."""
    if isinstance(wanted, int):
        return str(wanted)
    least, most = wanted
    return f"{1 if least is None else least} or more" if most is None else f"{1 if least is None else least} to {most}"


def make_server(service: Service, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of `service` that listens; port 0 takes a free one."""
    return ThreadingHTTPServer((host, port), make_handler(service))


def make_handler(service: Service) -> type[BaseHTTPRequestHandler]:
    """Return what handles the requests to `service`."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # a silent client does not keep its thread for ever

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client has gone: no matter of the log
                super().handle()

        def do_GET(self) -> None:
            self._send(*((200, {"status": "ok"}) if self.path == "/health" else (404, {"error": "GET must be /health"})))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/predict":
                self._send(404, {"error": "POST must be /predict"})
            elif not _LENGTH.fullmatch(length) or int(length) > MOST_BYTES:
                self._send(413, {"error": f"Content-Length must be a number up to {MOST_BYTES}, got {length[:80]!r}"})
            else:
                self._answer(self.rfile.read(int(length)))

        def _answer(self, body: bytes) -> None:
            try:
                status, document = 200, service.answer(body)
            except (ValueError, TypeError, RecursionError) as error:
                status, document = 400, {"error": str(error)}
            except Exception as error:  # the runtime's own error ends one request, and not the service
                status, document = 500, {"error": f"{type(error).__name__}: {error}"}
            self._send(status, document)

        def _send(self, status: int, document: Mapping[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class CopyServer(ThreadingHTTPServer):
    """The server of one of several copies: all of them listen to `listener`, which must not block."""

    def __init__(self, service: Service, listener: socket.socket, parent: int) -> None:
        super().__init__(listener.getsockname(), make_handler(service), bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._service = service
        self._parent = parent

    def get_request(self) -> tuple[Any, Any]:
        """Wait until the model is free, then take a request. If another copy has taken it, the base class ignores the `OSError`."""
        with self._service.lock:
            connection, address = self.socket.accept()
        connection.setblocking(True)
        return connection, address

    def service_actions(self) -> None:
        """End when the process that has started this copy is gone; called twice a second."""
        if os.getppid() != self._parent:
            os._exit(1)


def serve_copies(make_service: Callable[[], Service], listener: socket.socket, copies: int, ready: Callable[[], None]) -> None:
    """Load the model in `copies` processes that take requests from `listener`, until one of them ends; then end all.

    They are forked before the model is loaded: the threads of a runtime would not survive it. `ready` is called when all have it.
    """
    listener.setblocking(False)
    parent, (loaded, tell) = os.getpid(), os.pipe()
    pids: list[int] = []

    def end(*_: object) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(*_: object) -> None:
        end()
        os._exit(0)

    for _ in range(copies):
        if not (pid := os.fork()):
            _be_a_copy(make_service, listener, parent, tell)
        pids.append(pid)
    os.close(tell)
    signal.signal(signal.SIGTERM, stop)
    try:
        if sum(len(os.read(loaded, 1)) for _ in range(copies)) == copies:
            ready()
            os.wait()  # one copy has ended: end the others too, so that whoever runs this program starts it again
            raise SystemExit("a copy has ended, and the others with it")
        raise SystemExit("the model could not be loaded")
    finally:
        end()


def _be_a_copy(make_service: Callable[[], Service], listener: socket.socket, parent: int, tell: int) -> None:
    try:
        server = CopyServer(make_service(), listener, parent)
        os.write(tell, b".")
        os.close(tell)
        server.serve_forever()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201 -- a program of its own in a bundle
    finally:
        os._exit(1)


def main(make_service: Callable[[], Service], copies: int = 1) -> None:
    """Read the address from the command line, and serve until the process is stopped."""
    parser = argparse.ArgumentParser(description="Serve the model of this bundle: POST /predict, GET /health.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--copies", type=int, default=copies, help=f"processes; {copies} served most where this was measured")
    asked = parser.parse_args()
    if asked.copies < 1 or (asked.copies > 1 and not hasattr(os, "fork")):
        parser.error(f"--copies must be at least 1, and 1 on a system that cannot fork, got {asked.copies}")

    os.chdir(Path(__file__).resolve().parent)  # the model's files lie beside this one

    def announce(port: int) -> None:
        print(f"serving on port {port}", flush=True)  # noqa: T201 -- this is a program of its own in a bundle

    try:
        listener = socket.create_server((asked.host, asked.port), backlog=128)
    except OSError as error:
        parser.error(f"--port must be free, got {asked.port}: {error.strerror}")
    with listener:
        if asked.copies == 1:
            listener.close()  # only tried: the server opens it again
            server = make_server(make_service(), asked.host, asked.port)
            announce(server.server_address[1])
            server.serve_forever()
            return
        serve_copies(make_service, listener, asked.copies, lambda: announce(listener.getsockname()[1]))
