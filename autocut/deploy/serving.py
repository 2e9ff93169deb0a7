"""What serves a bundle by its own runtime, without autocut: `serve.py`, a small HTTP server, and a `Dockerfile` that runs it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path

from autocut.deploy import http_server
from autocut.deploy.devices import device_named
from autocut.deploy.manifest import MODEL_FOLDER, Manifest
from autocut.measure.allocator import keep_memory
from autocut.stages.compile import ExampleCall, modes_on
from autocut.stages.graph import Signature
from autocut.stages.libraries import versions_of

SERVE = "serve.py"
DOCKERFILE = "Dockerfile"
PORT = 8080

_GIVEN = "given["
_GPU_NOTE = (
    "# torch brings the libraries of CUDA. The driver is the host's: docker run --gpus all, with the NVIDIA Container Toolkit.\n"
)


def runtime_lines(
    model: Path, manifest: Manifest, tensors: tuple[str, ...], arrays: tuple[str, ...], threads: int | None = None
) -> str:
    """Return code that loads the model files in folder `model` by the runtime alone, and calls the model with these inputs.

    Of compiled forms for several batch sizes, the one for the smallest comes first. `threads` None: as many as it was timed with.
    """
    mode = modes_on(device_named(manifest).kind).method(manifest.mode).options
    paths = sorted(model.glob(mode.files))
    if _fixed_batch_size(model) is not None:
        paths.sort(key=lambda path: (len(path.name), path.name))  # model_2.pt2 before model_16.pt2
    files = tuple(f"{MODEL_FOLDER}/{path.relative_to(model).as_posix()}" for path in paths)
    return mode.run_lines(ExampleCall(model.parent, files, tensors, arrays, threads or manifest.measurement.cost.threads))


@dataclass(frozen=True)
class ServingCode:
    """Code that loads a model, and code that calls it with the arrays of the list `given` and leaves the result in `output`."""

    load: str
    call: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages that the code imports, with their versions here. A local version, such as 2.13.0+cpu, is left out."""
        versions = versions_of({"numpy", *_imported(f"{self.load}\n{self.call}")})
        return tuple(f"{name}=={version.partition('+')[0]}" for name, version in versions.items())


def serving_code(model: Path, manifest: Manifest) -> ServingCode | None:
    """Split the runtime's code where it first uses an input; None where it is no code that can be split so.

    What is above that line runs once, the rest at each call. A plug-in may bring other code (`ModeOptions.run_lines`).
    """
    names = tuple(f"{_GIVEN}{at}]" for at in range(len(manifest.inputs)))
    dtypes = (signature.dtype for signature in manifest.inputs)
    tensors = tuple(f"torch.from_numpy({name}).to(torch.{dtype})" for name, dtype in zip(names, dtypes, strict=True))
    _, threads = manifest.served_as
    lines = runtime_lines(model, manifest, tensors, names, threads).splitlines()
    first = next((at for at, line in enumerate(lines) if _GIVEN in line), len(lines))
    load, call = "\n".join(lines[:first]), "\n".join(lines[first:])
    try:
        if "torch" in _imported(load):
            load += f"\ntorch.set_num_threads({threads})"
        return ServingCode(load, call) if "output" in _assigned(call) else None
    except SyntaxError:
        return None


def serving_files(model: Path, manifest: Manifest) -> dict[str, str]:
    """Return the texts of `serve.py` and `Dockerfile` by name; none where the mode's code cannot serve."""
    code = serving_code(model, manifest)
    return {} if code is None else {SERVE: _script(model, manifest, code), DOCKERFILE: _dockerfile(manifest, code)}


def _script(model: Path, manifest: Manifest, code: ServingCode) -> str:
    limits = Signature.read(model).limits
    inputs = {
        signature.name: (
            _numpy_dtype(signature.dtype),
            (None, *(limits.get(size, (None, None)) if isinstance(size, str) else size for size in signature.shape[1:])),
        )
        for signature in manifest.inputs
    }
    return (
        f"{Path(http_server.__file__).read_text(encoding='utf-8')}\n\n{inspect.getsource(keep_memory)}\n\n"
        'def load():\n    """Load the model of this bundle, and return what calls it."""\n'
        "    keep_memory()  # as it was timed\n"
        f"{textwrap.indent(code.load, '    ')}\n\n    def predict(given):\n{textwrap.indent(code.call, '        ')}\n"
        "        return output\n\n    return predict\n\n\n"
        'if __name__ == "__main__":\n'
        f"    main(lambda: Service(load(), {inputs!r}, {_fixed_batch_size(model)}), copies={manifest.served_as[0]})\n"
    )


def _dockerfile(manifest: Manifest, code: ServingCode) -> str:
    version = ".".join(manifest.environment.python.split(".")[:2])
    return (
        f"FROM python:{version}-slim\nWORKDIR /bundle\n"
        "# Where pip finds the packages, such as a mirror: docker build --build-arg PIP_ARGS='--index-url URL' .\n"
        'ARG PIP_ARGS=""\n'
        f"{'' if device_named(manifest).is_cpu else _GPU_NOTE}"
        f"RUN pip install --no-cache-dir $PIP_ARGS {' '.join(code.requirements)}\n"
        f"COPY {SERVE} .\nCOPY {MODEL_FOLDER} {MODEL_FOLDER}\nUSER nobody\nEXPOSE {PORT}\n"
        f'CMD ["python", "{SERVE}", "--host", "0.0.0.0", "--port", "{PORT}"]\n'
    )


def _fixed_batch_size(model: Path) -> int | None:
    sizes = Signature.read(model).batch_sizes
    return min(sizes) if sizes else None


def _imported(code: str) -> set[str]:
    """Return the modules that `code` imports, without their submodules."""
    nodes = list(ast.walk(ast.parse(code)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | parts}


def _assigned(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _numpy_dtype(dtype: str) -> str:
    """Return the dtype in which a request's numbers are read: numpy has no bfloat16, so torch makes it of float32."""
    return "float32" if dtype == "bfloat16" else dtype
