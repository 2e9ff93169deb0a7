"""Read a `torch.export` archive without ever unpickling.

`torch.export.load` of torch 2.13 unpickles in five places: sample inputs (it falls back from ``weights_only=True`` to unrestricted
loading), tensor subclasses, custom and opaque objects, the weights of older formats, and whole older archives. So the records are
first compared with a list of those that a plain graph needs, by torch's own reader, and older formats are never read. This can go
when torch offers a load that refuses pickles.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from autocut.errors import BundleError, quoted

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.export.pt2_archive import PT2ArchiveReader

_FRAME = r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
_PLAIN = re.compile(
    _FRAME + r"|models/model\.json|data/(weights/model_weights_config|constants/model_constants_config)\.json"
    r"|data/(weights/weight|constants/tensor)_\d+"
)
_NAME = r"(?!\.{1,2}(/|$))[^/\\]+"
_CODE = re.compile(_FRAME + rf"|data/aotinductor/{_NAME}/{_NAME}")
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_HINT = "export the model again with autocut"


def read_archive(path: Path) -> ExportedProgram:
    """Load the exported program in `path`.

    Raises:
        BundleError: the archive is damaged, or holds anything but a graph and plain tensors.
    """
    from torch.export.pt2_archive._package import load_pt2

    try:
        refuse_pickles(path)
        return load_pt2(str(path)).exported_programs["model"]
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{path.name} must be a whole exported graph, got: {reason[:200]}", _HINT) from error


def refuse_graphs(path: Path) -> None:
    """Raise unless the archive holds compiled code alone: torch's loader would unpickle a graph that lies beside it.

    Raises:
        BundleError: a record is not code, or the archive is damaged.
    """
    try:
        with _open(path) as archive:
            others = [name for name in archive.get_file_names() if not _CODE.fullmatch(name)]
    except RuntimeError as error:
        raise BundleError(f"{path.name} must be a whole package, got: {str(error).splitlines()[0][:200]}", _HINT) from error
    if others:
        raise BundleError(f"{path.name} must hold compiled code alone, got the record {quoted(others[0])}", _HINT)


def refuse_pickles(path: Path) -> None:
    """Raise unless the archive holds a graph and raw tensors alone.

    Raises:
        BundleError: a record is not plain; the message names it.
    """
    with _open(path) as archive:
        names = archive.get_file_names()
        if len(set(names)) != len(names):
            raise BundleError(f"{path.name} must name every record once, got a name twice", _HINT)
        for name in names:
            if name == _SAMPLES:
                if archive.read_bytes(name):
                    raise BundleError(f"{path.name} must hold no pickle, got sample inputs", _HINT)
            elif not _PLAIN.fullmatch(name):
                raise BundleError(f"{path.name} must hold a graph and raw tensors, got the record {quoted(name)}", _HINT)
        for name in _CONFIGS:
            for key, payload in json.loads(archive.read_string(name))["config"].items():
                if payload["use_pickle"] or not _PAYLOAD.fullmatch(payload["path_name"]):
                    raise BundleError(f"{path.name} must hold no pickle, got one for {quoted(key)}", _HINT)


def _open(path: Path) -> PT2ArchiveReader:
    """Open the archive by torch's reader.

    The import stands here because torch 2.13 imports its whole tracer with the reader, which takes as long as torch itself, and
    many bundles have no such archive. It can go to the top when the reader can be imported alone.
    """
    from torch.export.pt2_archive import PT2ArchiveReader

    return PT2ArchiveReader(str(path))
