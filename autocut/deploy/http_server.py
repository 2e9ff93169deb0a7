"""Serve a model over HTTP, one call at a time: POST /predict takes and gives JSON, GET /health answers. It needs numpy alone.

A bundle's `serve.py` is a copy of this file, with the code that loads the bundle's model below it.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

MOST_BYTES = 64 * 2**20
"""A larger request is refused, so that no client fills the memory."""


class Service:
    """A model, what it takes, and the lock that lets one call run at a time.

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
        self._lock = threading.Lock()

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
            raise ValueError(f"inputs must be {', '.join(self.inputs)}, got {', '.join(given) or 'no names'}")
        arrays = [self._array(name, given[name]) for name in self.inputs]
        if len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
            raise ValueError("all inputs must have as many examples, at least one")
        with self._lock:
            return {"output": self._run(arrays)}

    def _array(self, name: str, values: Any) -> Any:
        dtype, shape = self.inputs[name]
        array = np.asarray(values).astype(dtype, casting="same_kind")  # a fraction is no whole number
        sizes = zip(array.shape[1:], shape[1:], strict=False)
        if array.ndim != len(shape) or not all(_fits(size, wanted) for size, wanted in sizes):
            raise ValueError(f"{name} must have the shape {list(shape)}, got {list(array.shape)}")
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


def make_server(service: Service, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of `service` that listens; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # a silent client does not keep its thread for ever

        def do_GET(self) -> None:
            self._send(*((200, {"status": "ok"}) if self.path == "/health" else (404, {"error": "GET must be /health"})))

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/predict":
                self._send(404, {"error": "POST must be /predict"})
            elif not length.isdigit() or int(length) > MOST_BYTES:
                self._send(413, {"error": f"Content-Length must be a number up to {MOST_BYTES}, got {length!r}"})
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

    return ThreadingHTTPServer((host, port), Handler)


def main(service: Service) -> None:
    """Read the address from the command line, and serve until the process is stopped."""
    parser = argparse.ArgumentParser(description="Serve the model of this bundle: POST /predict, GET /health.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    asked = parser.parse_args()
    server = make_server(service, asked.host, asked.port)
    print(f"serving on port {server.server_address[1]}", flush=True)  # noqa: T201 -- this is a program of its own in a bundle
    server.serve_forever()
