"""What is fuzzed of a bundle: its manifest, its examples, what lies beside its weights, and its server."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import threading
import traceback
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from hostile_inputs import changed, changed_bytes, json_files, reseal, texts
from hostile_runs import FaultFound, run
from hypothesis import strategies as st

from autocut.deploy.bundle import load
from autocut.deploy.http_server import Service, make_handler
from autocut.deploy.manifest import hash_file
from autocut.errors import AutocutError

if TYPE_CHECKING:
    from hostile_targets import Home

_LINES = ("POST /predict HTTP/1.1", "GET /health HTTP/1.1", "POST /x HTTP/1.0", "PUT /predict HTTP/1.1")
_OTHERS = (b"501", b"505")
"""Status codes above 500 with which Python's own handler refuses a method or a version."""


def bundle_manifest(data: st.DataObject, at: Home) -> None:
    """A manifest with changes, sealed again."""
    bundle = bundle_elsewhere(at, data)
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    if data.draw(st.booleans(), "in its bytes"):
        manifest.write_bytes(data.draw(changed_bytes(manifest.read_bytes()), "file"))
    else:
        reseal(bundle, data.draw(changed(document), "manifest"))
    run(data.draw(st.sampled_from((["verify", str(bundle)], ["verify", str(bundle), "--json"])), "words"))


def bundle_examples(data: st.DataObject, at: Home) -> None:
    """An examples file of other arrays or bytes, sealed again."""
    bundle = bundle_elsewhere(at, data)
    examples = bundle / "examples.npz"
    if data.draw(st.booleans(), "in its bytes"):
        examples.write_bytes(data.draw(changed_bytes(examples.read_bytes()), "file"))
    else:
        _change_arrays(data, examples)
    _seal(bundle, examples)
    run(["verify", str(bundle)])


def bundle_model(data: st.DataObject, at: Home) -> None:
    """What lies beside the weights: how the model is called, and what its runtime is asked for. `load` reads it."""
    bundle = bundle_elsewhere(at, data)
    file = data.draw(st.sampled_from(sorted((bundle / "model").glob("*.json"))), "file")
    file.write_bytes(data.draw(json_files(json.loads(file.read_text(encoding="utf-8"))), "content"))
    _seal(bundle, file)
    outside = set(at.scratch.iterdir())
    try:
        load(bundle)
    except AutocutError:
        pass
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise FaultFound(f"load raised {type(error).__name__} at {last.name}", ["load", file.name], repr(error)) from error
    if written := set(at.scratch.iterdir()) - outside:
        raise FaultFound(f"load wrote {min(written).name}", ["load", file.name], "")


def http_request(data: st.DataObject, at: Home) -> None:  # noqa: ARG001  (it needs no files)
    """Bytes that a client sends to a bundle's server."""
    batch_size = data.draw(st.sampled_from((None, 2)), "batch")
    service = Service(lambda arrays: 2 * arrays[0], {"x": ("float32", (None, (1, 3)))}, batch_size)
    body = data.draw(json_files({"inputs": {"x": [[1, 2.5, 3]]}}), "body")
    length = data.draw(st.one_of(st.just(str(len(body))), texts(), st.integers().map(str)), "length")
    head = f"{data.draw(st.sampled_from(_LINES), 'line')}\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode("utf-8", "replace")
    request = head + body
    if data.draw(st.booleans(), "in its bytes"):
        request = data.draw(changed_bytes(request), "request")
    told, answer = _answer_to(service, request)
    status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/") else b"200"  # a request without a version gets no head
    if not (200 <= int(status) < 500 or status in _OTHERS) or "Traceback" in told:
        raise FaultFound(f"the server answered {status!r}", [repr(request[:200])], told + repr(answer[:300]))


def _answer_to(service: Service, request: bytes) -> tuple[str, bytes]:
    """Let the server's handler answer one connection; return what it says on stderr, and what it sends."""
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.redirect_stderr(io.StringIO()) as told:
        ours.settimeout(5)
        sending = threading.Thread(target=_send_all, args=(ours, request))
        sending.start()
        try:
            make_handler(service)(theirs, ("127.0.0.1", 1), mock.Mock())
        except Exception as error:
            raise FaultFound(f"the server's handler raised {type(error).__name__}", [repr(request[:200])], repr(error)) from error
        finally:
            theirs.close()
        answer = b""
        with contextlib.suppress(ConnectionError):  # the server closes while bytes of the request are on their way
            while part := ours.recv(65536):
                answer += part
        sending.join()
        return told.getvalue(), answer


def _send_all(to: socket.socket, request: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has closed
        to.sendall(request)
        to.shutdown(socket.SHUT_WR)


def _seal(bundle: Path, file: Path) -> None:
    """Let the manifest have the hash of a changed file, as a person could who made the bundle."""
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    sealed = hash_file(bundle, file).model_dump()
    reseal(bundle, {**document, "files": [sealed if known["path"] == sealed["path"] else known for known in document["files"]]})


def bundle_elsewhere(at: Home, data: st.DataObject) -> Path:
    """Copy a bundle of the study, one for each mode, and let it be measured elsewhere, so that verifying it times nothing."""
    manifests = sorted(at.study.glob("bundles/*/manifest.json"))
    by_mode = {json.loads(manifest.read_text(encoding="utf-8"))["mode"]: manifest.parent for manifest in manifests}
    bundle = Path(shutil.copytree(by_mode[data.draw(st.sampled_from(sorted(by_mode)), "mode")], at.scratch / "bundle"))
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    document["measurement"]["cost"]["machine"] = "elsewhere"
    reseal(bundle, document)
    return bundle


def _change_arrays(data: st.DataObject, file: Path) -> None:
    with np.load(file) as saved:
        arrays = {name: saved[name] for name in saved.files}
    name = data.draw(st.sampled_from(sorted(arrays)), "array")
    shape = data.draw(st.lists(st.integers(0, 20), max_size=4).map(tuple), "shape")
    dtype = data.draw(st.sampled_from(("float32", "float64", "float16", "int64", "int8", "bool", "complex64", "U3", "M8[s]")))
    match data.draw(st.sampled_from(("shape", "dtype", "fill", "remove", "rename", "add"))):
        case "shape":
            arrays[name] = np.zeros(shape, arrays[name].dtype)
        case "dtype":
            arrays[name] = np.zeros(arrays[name].shape, dtype)
        case "fill":
            arrays[name] = np.full_like(arrays[name], data.draw(st.sampled_from((0, 1, -1, 99))))
        case "remove":
            del arrays[name]
        case "rename":
            arrays[data.draw(st.sampled_from(("00000/inputs/x", "x", "00009/targets", "00000/outputs_step")))] = arrays.pop(name)
        case _:
            arrays["00000/outputs_step"], arrays["00000/outputs_shape"] = np.zeros(shape, dtype), np.zeros(shape, "int64")
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for key, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            archive.writestr(f"{key}.npy", one.getvalue())
    file.write_bytes(written.getvalue())
