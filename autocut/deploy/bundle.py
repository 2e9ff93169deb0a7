"""A bundle: a deployable model in one directory, which loads without the user's code.

    manifest.json ...... what it claims, and the SHA-256 of every other file
    model/ ............. the files of the format's own runtime
    manifest.sig ....... who made it, if it was signed
    examples.npz ....... inputs, targets and this model's outputs, for verification
    README.md .......... how to run it, its numbers, its price
    serve.py ........... serves it over HTTP by the runtime alone
    Dockerfile ......... runs serve.py; bundles of older versions have neither

Reading a bundle checks every hash before a runtime sees a byte, and never unpickles.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from autocut import __version__
from autocut.counting import format_count
from autocut.deploy.devices import device_of, served_on
from autocut.deploy.examples import ExampleBatch, claimed_metric, number_of_examples, write_examples
from autocut.deploy.manifest import (
    EXAMPLES,
    MANIFEST,
    MODEL_FOLDER,
    README,
    Created,
    Economics,
    Environment,
    ExamplesClaim,
    Manifest,
    TensorSignature,
    check_files,
    hash_files,
    read_manifest,
    render,
)
from autocut.deploy.pickles import refuse_pickles
from autocut.deploy.readme import readme
from autocut.deploy.serving import serving_files
from autocut.deploy.signing import read_public_key, require_signature
from autocut.deploy.versions import told_with_versions
from autocut.errors import AutocutError, BundleError, quoted
from autocut.measure import allocator
from autocut.measurement import Accuracy, Measurement
from autocut.precision import Precision
from autocut.recipe import Recipe
from autocut.stages import lowering
from autocut.stages.device import CPU, Device
from autocut.stages.graph import Signature
from autocut.stages.libraries import runtime_versions
from autocut.task.batches import Inputs, tensors


@dataclass(frozen=True)
class Claims:
    """What a new bundle says about its model, besides the hashes and signatures that are read from its files.

    `kind` is the registered kind whose metric the task uses, None if the metric is the user's own function. `metric` is its name.
    `lineage` holds the keys of the stages that made the model, `command` the command that the user typed. If the verifier
    replays only the first `test_examples` of the claimed split, `test_accuracy` is the metric on those. The
    inputs of `synthetic` examples are made up, and have no accuracy. `split_examples` is the size of the split where the claimed
    accuracy is that of a sample of it. `timed_sizes` are the sizes of free dimensions by batch size. `validation` is the accuracy
    that the search chose by. `trained_on` is the kind of device that trained the model, None for the CPU; `train_precision` is what
    its training multiplied in, None for fp32; `served_on` is the device that measured it.
    """

    task: str
    recipe: Recipe
    measurement: Measurement
    values: Mapping[str, float]
    kind: str | None
    metric: str
    command: str
    seed: int
    trial: int | None = None
    lineage: Sequence[str] = ()
    economics: Economics | None = None
    validation: Accuracy | None = None
    machine_details: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    test_examples: int | None = None
    test_accuracy: float | None = None
    synthetic: bool = False
    split_examples: int | None = None
    timed_sizes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    trained_on: str | None = None
    train_precision: Precision | None = None
    served_on: Device = CPU


class Deployed:
    """A loaded bundle. Call it with the inputs of its model: a tensor, a tuple or a dict of tensors with the batch first.

    It runs in inference mode on its `device`, the CPU or a GPU, and returns the output tensor where the inputs lie. It cannot be
    trained. `predict` is the same call without the check of the inputs, for loops where microseconds count.
    """

    def __init__(self, folder: Path, manifest: Manifest, predict: Callable[[Inputs], Tensor], device: Device = CPU) -> None:
        self.folder = folder
        self.manifest = manifest
        self.predict = predict
        self.device = device

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return the model's output for a batch.

        Raises:
            BundleError: the inputs are not the ones of the manifest's signature.
        """
        self._check(inputs)
        return self.predict(inputs)

    def __repr__(self) -> str:
        """Show which model this is."""
        return f"Deployed({str(self.folder)!r}: {self.manifest.task}, {Recipe(self.manifest.recipe).describe()})"

    @property
    def free_dimensions(self) -> dict[str, tuple[str, ...]]:
        """Names of each input's dimensions that may differ from call to call, besides the batch; empty where all are fixed."""
        named = {
            signature.name: tuple(size for size in signature.shape if isinstance(size, str)) for signature in self.manifest.inputs
        }
        return {name: free for name, free in named.items() if free}

    def _check(self, inputs: Inputs) -> None:
        given = {name: (str(tensor.dtype).removeprefix("torch."), tensor.dim()) for name, tensor in tensors(inputs).items()}
        wanted = {signature.name: (signature.dtype, len(signature.shape)) for signature in self.manifest.inputs}
        if given != wanted:
            raise BundleError(f"inputs must be {_told(wanted)}, got {_told(given)}", f"see 'inputs' in {self.folder / MANIFEST}")


def load(path: str | Path, threads: int = 1, *, trusted: str | Path | None = None, keep_memory: bool = True) -> Deployed:
    """Load the bundle at `path` without the code that trained it, after checking every hash.

    Args:
        path: The bundle's folder.
        threads: CPU threads for one call in runtimes with a pool of their own. Torch's pool belongs to the process: set it with
            `torch.set_num_threads`, which this function leaves alone.
        trusted: File of the public key of who must have signed the bundle (`signing`). None: anybody may have made it.
        keep_memory: Let this process keep all memory that it frees from now on, as when the bundle was timed. A call with
            activations of more than 32 MB may take twice as long without.

    Raises:
        BundleError: `path` is no readable bundle, holds a pickle, or is for another device than this machine has. Where its runtime
            refuses the model, the message names the libraries that have another version here.
        InputError: `trusted` is no public key.
        MissingDependencyError: its runtime is not installed.
        VerificationError: a file is missing, extra or not the one that the manifest names, or the signature does not fit.
    """
    folder = Path(path)
    if trusted is not None:
        require_signature(folder, read_public_key(Path(trusted)))
    manifest = read_manifest(folder)
    check_bundle(folder, manifest)
    device = device_of(manifest)
    if keep_memory:
        allocator.keep_memory()
    with told_with_versions(manifest):
        predict = lowering.load(folder / MODEL_FOLDER, manifest.mode, threads, device)
    return Deployed(folder, manifest, predict, device)


def check_bundle(folder: Path, manifest: Manifest) -> None:
    """Check every hash, before a runtime sees a byte of the model.

    Raises:
        BundleError: it holds a pickle.
        VerificationError: a file is not the one that the manifest names.
    """
    check_files(folder, manifest)
    refuse_pickles(folder / MODEL_FOLDER)


def write_bundle(artifact: Path, to: Path, claims: Claims, examples: Sequence[ExampleBatch]) -> Manifest:
    """Write the model in `artifact` as a bundle at `to`: all of it or nothing.

    Args:
        artifact: Folder that `lowering.lower` wrote. Copied, not modified.
        to: Missing or empty folder. A folder that already holds the same bundle is left as it is.
        claims: What the manifest says besides hashes and signatures.
        examples: From `collect_examples` with the model loaded from `artifact`.

    Raises:
        BundleError: `to` holds something else, the artifact holds a pickle, or the disk refuses.
    """
    refuse_pickles(artifact)
    with told_as_bundle_error(to), _temporary_folder(to, to.parent) as draft:
        shutil.copytree(artifact, draft / MODEL_FOLDER)
        write_examples(draft / EXAMPLES, examples)
        manifest = _finish(draft, claims, examples)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            return _existing(to, manifest)
        draft.replace(to)
        _sync(to.parent)
    return manifest


def hand_out(to: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a new folder, in which it makes a bundle, and move that to `to`: all of it or nothing.

    A folder `to` that exists stays the same folder, because it may be the user's working folder or a mounted disk. A missing one
    appears whole.

    Raises:
        BundleError: `to` is neither missing nor an empty folder, or the disk refuses.
    """
    to = to.resolve()
    with contextlib.ExitStack() as stack:
        with told_as_bundle_error(to):
            _refuse_occupied(to)
            draft = stack.enter_context(_temporary_folder(to, to if to.is_dir() else to.parent))
        write(draft)
        with told_as_bundle_error(to):
            _place(draft, to)


def _refuse_occupied(to: Path) -> None:
    file = next((path for path in (to, *to.parents) if path.exists() and not path.is_dir()), None)
    if file is not None or (to.is_dir() and any(to.iterdir())):
        reason = f", where {quoted(str(file))} is a file" if file not in (None, to) else ""
        raise BundleError(
            f"--to must be a missing or empty folder, got {quoted(str(to))}{reason}", "choose another folder, or remove this one"
        )


def _place(draft: Path, to: Path) -> None:
    if not to.is_dir():
        draft.rename(to)
        _sync(to.parent)
        return
    # The manifest is last: without it, a folder that a power cut leaves unfinished is no bundle.
    for path in sorted(draft.iterdir(), key=lambda path: path.name == MANIFEST):
        path.rename(to / path.name)
    _sync(to)


def copy_bundle(source: Path, to: Path) -> None:
    """Copy the bundle `source` to the missing or empty folder `to`, and check both. No runtime loads it.

    Raises:
        BundleError: `source` is no readable bundle or holds a pickle.
        VerificationError: a file of either is not the one that the manifest names.
    """
    manifest = read_manifest(source)
    check_files(source, manifest)
    refuse_pickles(source / MODEL_FOLDER)
    shutil.copytree(source, to, dirs_exist_ok=True)
    check_files(to, read_manifest(to))
    _sync_files(to)


def _finish(draft: Path, claims: Claims, examples: Sequence[ExampleBatch]) -> Manifest:
    """Write the README and the manifest into `draft`, which already has everything else."""
    (draft / README).touch()
    try:
        manifest = _manifest(draft, claims, examples)
        model = draft / MODEL_FOLDER
        for name, text in {README: readme(model, manifest), **serving_files(model, manifest)}.items():
            (draft / name).write_text(text, encoding="utf-8")
        manifest = manifest.model_copy(update={"files": hash_files(draft)})
        # Through JSON and back, so that the claims are what a reader will see, to the last digit.
        manifest = Manifest.model_validate(json.loads(json.dumps(manifest.content, allow_nan=False)))
    except ValueError as error:
        reason = " ".join(str(error).splitlines()[:3])
        raise BundleError(
            f"bundle must claim finite, well-formed values: {reason}", "measure the model again before it is exported"
        ) from None
    (draft / MANIFEST).write_text(render(manifest), encoding="utf-8")
    _sync_files(draft)
    return manifest


def _manifest(draft: Path, claims: Claims, examples: Sequence[ExampleBatch]) -> Manifest:
    dtype, mode = claims.recipe.lowering
    first, signature = examples[0], Signature.read(draft / MODEL_FOLDER)
    shapes = dict(zip(signature.names, signature.shapes, strict=True)) if any(signature.free) else {}
    best = None if claims.measurement.capacity is None else claims.measurement.capacity.best
    structure: Literal["tensor", "tuple", "dict"] = "tuple"
    if not isinstance(first.inputs, tuple):
        structure = "tensor" if isinstance(first.inputs, Tensor) else "dict"
    return Manifest(
        schema_version=1,
        task=claims.task,
        trial=claims.trial,
        recipe=dict(claims.recipe),
        dtype=dtype,
        mode=mode,
        lineage=tuple(claims.lineage),
        seed=claims.seed,
        metric=claims.metric,
        measurement=claims.measurement,
        values=dict(claims.values),
        economics=claims.economics,
        structure=structure,
        inputs=tuple(
            _signature(name, shapes.get(name, tensor.shape), str(tensor.dtype)) for name, tensor in tensors(first.inputs).items()
        ),
        output=_signature("output", signature.output or first.shape, str(first.outputs.dtype)),
        verification=ExamplesClaim(
            examples=number_of_examples(examples),
            kind=claims.kind,
            accuracy=None if claims.synthetic else claimed_metric(claims.kind, examples),
            outputs_step=first.step if first.step > 1 else None,
            test_examples=claims.test_examples,
            test_accuracy=claims.test_accuracy,
            synthetic=True if claims.synthetic else None,
            split_examples=claims.split_examples,
        ),
        environment=Environment(
            python=platform.python_version(),
            libraries=runtime_versions(),
            machine=claims.measurement.cost.machine,
            machine_details=dict(claims.machine_details),
        ),
        created=Created(at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), command=claims.command, autocut=__version__),
        files=hash_files(draft),
        timed_sizes={size: dict(sizes) for size, sizes in claims.timed_sizes.items()} or None,
        validation=claims.validation,
        copies=None if best is None else best.copies,
        threads=None if best is None else best.threads,
        trained_on=claims.trained_on,
        train_precision=claims.train_precision,
        served_on=served_on(claims.served_on),
    )


def _signature(name: str, shape: Sequence[int | str | None], dtype: str) -> TensorSignature:
    return TensorSignature(name=name, dtype=dtype.removeprefix("torch."), shape=(None, *shape[1:]))


def _existing(to: Path, manifest: Manifest) -> Manifest:
    hint = "choose another folder with --to, or remove this one"
    try:
        existing = read_manifest(to)
        check_files(to, existing)
    except AutocutError:
        raise BundleError(
            f"bundle must go to a missing or empty folder, got {quoted(str(to))} with other things in it", hint
        ) from None
    if not existing.same_model_as(manifest):
        raise BundleError(f"bundle must go to a missing or empty folder, got {quoted(str(to))} with another bundle in it", hint)
    return existing


@contextlib.contextmanager
def _temporary_folder(to: Path, home: Path) -> Iterator[Path]:
    """Make a folder in `home`, on the same disk as `to`, so that renaming is atomic. It is deleted at the end of the block."""
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=home))
    draft = folder / "bundle"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def told_as_bundle_error(to: Path) -> Iterator[None]:
    """Translate errors of the disk while `to` is written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, shutil.Error):  # copytree raises a list of (source, target, reason), without an error number
            reason = str(error.args[0][0][2]) if isinstance(error.args[0], list) else reason
        raise BundleError(
            f"bundle {to} must be writable, got: {reason}", "make room there, or choose another folder with --to"
        ) from error


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)


def _sync(path: Path) -> None:
    """Make the disk write `path` before the rename, so that a power cut leaves no half bundle."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _told(signature: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name}: {dtype} with {format_count(sizes, 'dimension')}" for name, (dtype, sizes) in signature.items())
