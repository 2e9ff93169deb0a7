"""The manifest of a bundle: the bundle's claims, and the hash of every file. No torch here.

`manifest.json` has one canonical spelling of its content and the SHA-256 of that content, so any changed byte in it is found. The
hashes find damage and mix-ups. They are no signature: a person who can write the folder can write new hashes too. If that matters,
compare `Manifest.digest` with a copy that is kept elsewhere; the study database has one.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from autocut.bill import Bill, Serving
from autocut.errors import BundleError, VerificationError, quoted
from autocut.measurement import Accuracy, Measurement
from autocut.precision import Precision
from autocut.price import Price
from autocut.recipe import Value
from autocut.space.outside import checked_recipe

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
"""Optional; of the manifest, which can therefore not name it (`signing`)."""
EXAMPLES = "examples.npz"
README = "README.md"
MODEL_FOLDER = "model"

_MAX_MANIFEST_BYTES = 4 * 2**20
_RECENT = ("timed_sizes", "validation", "trained_on", "train_precision", "served_on", "copies", "threads")
_RECENTLY_MEASURED = ("capacity", "capacity_note")
"""Fields of the manifest and of its measurement that are written only where they say something."""


def _plain_path(path: str) -> str:
    """Accept a relative POSIX path in its canonical spelling, and nothing that leaves the bundle on any system."""
    parts = PurePosixPath(path).parts
    normal = unicodedata.normalize("NFC", path) == path and path.isprintable()
    if (
        not normal
        or not parts
        or "/".join(parts) != path
        or any(part in ("..", ".", "/") or set(part) & set('\\:*?"<>|') for part in parts)
    ):
        raise ValueError(f"path must be relative, inside the bundle and without '..', got {quoted(path)}")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundleFile(_Record):
    """One file of the bundle: its path inside the bundle, hash and size."""

    path: Annotated[str, AfterValidator(_plain_path)]
    sha256: Sha256
    size_bytes: int = Field(ge=0)


class TensorSignature(_Record):
    """Name, dtype (numpy's name) and shape of an input or output; None stands for the batch, a name for a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class ExamplesClaim(_Record):
    """What the model must give on `examples.npz`: `accuracy` by the rules of `kind`. Both are None if the metric is the user's.

    The other fields are written only where they say something, so that older versions read all other bundles:

    - `outputs_step`: the file keeps every so many-th value of an example's outputs, because they are large. Accuracy is that of the
      whole outputs.
    - `test_examples`: at export, only so many first examples of the test split were replayed, because more would take long.
      `test_accuracy` is the model's metric on those.
    - `split_examples`: the claimed accuracy is that of a seeded sample of the split, which has so many examples.
    - `synthetic`: the inputs of the file are made up, so that it holds no data of the user. `accuracy` is then None.
    """

    examples: int = Field(ge=1)
    kind: str | None
    accuracy: float | None
    outputs_step: int | None = Field(default=None, gt=1)
    test_examples: int | None = Field(default=None, ge=1)
    test_accuracy: float | None = None
    synthetic: Literal[True] | None = None
    split_examples: int | None = Field(default=None, ge=1)

    @model_serializer(mode="wrap")
    def _only_what_is_known(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        always = ("examples", "kind", "accuracy")
        return {name: value for name, value in serialize(self).items() if name in always or value is not None}


class Economics(_Record):
    """Money: the cost of a million predictions, and the number of them after which the search has paid for itself (None: never).

    `search_usd` is what the search had spent when this bundle was made, not what its budget allowed.

    The fields from `price_fit` on are written only where they say something, so that older versions read all other bundles:

    - `price_fit`: why dollars may not hold on the machine that measured (`price.fit`).
    - `train_usd`: training this recipe once, by its CPU seconds.
    - `requests_per_month`: what the user told; the bill of a month follows from it.
    - `co2_g_per_million`: grams of CO2 of a million predictions, at `grid_g_per_kwh`, which `grid_source` gives.
    """

    instance: str
    price_per_hour: float = Field(gt=0)
    price_date: str
    utilization: float = Field(gt=0, le=1)
    usd_per_million: float = Field(ge=0)
    baseline_usd_per_million: float = Field(ge=0)
    search_usd: float = Field(ge=0)
    break_even_predictions: float | None = Field(default=None, ge=0)
    price_fit: str | None = None
    train_usd: float | None = Field(default=None, ge=0)
    requests_per_month: float | None = Field(default=None, gt=0)
    co2_g_per_million: float | None = Field(default=None, ge=0)
    grid_g_per_kwh: float | None = Field(default=None, ge=0)
    grid_source: str | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_known(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name == "break_even_predictions" or value is not None}

    @property
    def bill(self) -> Bill:
        """The same money as a bill."""
        price = Price(self.instance, self.price_per_hour, self.price_date, self.utilization)
        amounts = (self.baseline_usd_per_million, self.usd_per_million, self.search_usd, self.train_usd)
        return Bill(price, *amounts, self.requests_per_month)


def economics_of(bill: Bill, serving: Serving, energy_j_per_prediction: float | None, price_fit: str | None) -> Economics:
    """Return what a manifest says about money and CO2. `price_fit` says why dollars may not hold on this machine."""
    joules = energy_j_per_prediction
    return Economics(
        instance=bill.price.instance,
        price_per_hour=bill.price.usd_per_hour,
        price_date=bill.price.date,
        utilization=bill.price.utilization,
        usd_per_million=bill.usd_per_million,
        baseline_usd_per_million=bill.untouched_usd_per_million,
        search_usd=bill.search_usd,
        break_even_predictions=bill.break_even_predictions,
        price_fit=price_fit,
        train_usd=bill.train_usd,
        requests_per_month=bill.requests_per_month,
        co2_g_per_million=None if joules is None else serving.grams_per_million(joules),
        grid_g_per_kwh=None if joules is None else serving.grid_g_per_kwh,
        grid_source=None if joules is None else serving.grid_source,
    )


class Environment(_Record):
    """Where the bundle was made: versions of the libraries, and the machine that its numbers were measured on."""

    python: str
    libraries: dict[str, str]
    machine: str
    machine_details: dict[str, str | int | float | bool | None] = {}


class ServedOn(_Record):
    """A GPU that serves a bundle: its kind, as torch calls it, its model, and its compute capability, such as "9.0"."""

    kind: str
    name: str
    capability: str | None


class Created(_Record):
    """When, and by which command."""

    at: str
    command: str
    autocut: str


class Manifest(_Record):
    """Everything that a bundle claims about itself.

    `timed_sizes` holds, by batch size, the sizes of the free dimensions at which the latency was measured. A model without free
    dimensions has none, and its manifest does not name the field, so that older versions read it. `validation` is the accuracy by
    which the search chose this model; `measurement` has the one of the split that nothing was chosen by. Bundles of older versions
    do not name it. `trained_on` is the kind of device that trained the model where that was not the CPU, `train_precision` what
    the training multiplied in where that was not fp32; `served_on` is the GPU that measured it and that it is for, where that was
    not the CPU.
    """

    schema_version: Literal[1]
    task: str
    trial: int | None
    recipe: dict[str, Value]
    dtype: str
    mode: str
    lineage: tuple[str, ...]
    seed: int
    metric: str
    measurement: Measurement
    values: dict[str, float]
    economics: Economics | None
    structure: Literal["tensor", "tuple", "dict"]
    inputs: tuple[TensorSignature, ...] = Field(min_length=1)
    output: TensorSignature
    verification: ExamplesClaim
    environment: Environment
    created: Created
    files: tuple[BundleFile, ...] = Field(min_length=1)
    timed_sizes: dict[int, dict[str, int]] | None = None
    validation: Accuracy | None = None
    copies: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    trained_on: str | None = None
    train_precision: Precision | None = None
    served_on: ServedOn | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_known(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        known = {name: value for name, value in serialize(self).items() if name not in _RECENT or value is not None}
        measured = known["measurement"].items()
        known["measurement"] = {name: value for name, value in measured if name not in _RECENTLY_MEASURED or value is not None}
        return known

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        capacity = self.measurement.capacity
        best = None if capacity is None else capacity.checked().best
        if (self.copies, self.threads) != ((None, None) if best is None else (best.copies, best.threads)):
            raise ValueError(f"copies and threads must be those of the best layout, {best}, got {self.copies} x {self.threads}")
        if (lowering := checked_recipe(self.recipe).lowering) != (self.dtype, self.mode):
            raise ValueError(f"recipe must run {self.dtype} in {self.mode}, got {lowering}")
        folded = [file.path.casefold() for file in self.files]
        if len(set(folded)) != len(folded) or {MANIFEST, SIGNATURE} & set(folded):
            raise ValueError("files must name every file once, and neither the manifest nor its signature")
        if missing := {EXAMPLES, README.casefold()} - set(folded):
            raise ValueError(f"files must hold {EXAMPLES} and {README}, got none of {sorted(missing)}")
        if not self.model_files:
            raise ValueError(f"files must hold at least one file below {MODEL_FOLDER}/")
        return self

    @property
    def served_as(self) -> tuple[int, int]:
        """Copies, and threads of each, that serve best; one process as it was timed where nothing else was measured."""
        return self.copies or 1, self.threads or self.measurement.cost.threads

    @property
    def model_files(self) -> tuple[BundleFile, ...]:
        """The files that the format's runtime needs."""
        return tuple(file for file in self.files if file.path.startswith(f"{MODEL_FOLDER}/"))

    @property
    def content(self) -> dict[str, Any]:
        """Plain JSON content."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 of the content: the identity of the bundle, as every file's hash is part of it."""
        return _digest(self.content)

    def same_model_as(self, other: Manifest) -> bool:
        """Whether both claim the same about the same files. They may be written at other times by other commands."""
        return self.model_copy(update={"created": other.created}) == other


def render(manifest: Manifest) -> str:
    """Return the text of `manifest.json`."""
    return _text({**manifest.content, "content_sha256": manifest.digest})


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`. The files that it names are not read (`check_files` does that).

    Raises:
        BundleError: no folder, no manifest, not JSON, another schema version, a wrong field.
        VerificationError: it is well-formed, but its content does not match its own hash.
    """
    if not folder.is_dir():
        raise BundleError(
            f"bundle must be a folder, got {quoted(str(folder))}", "autocut export STUDY --trial N --to FOLDER writes one"
        )
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(
            f"bundle {folder} must hold {MANIFEST}, got none", "autocut export STUDY --trial N --to FOLDER writes one"
        )
    document = _parse(path, folder)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{path}: schema_version must be {SCHEMA_VERSION}, got {quoted(version)}",
            "use the autocut that wrote the bundle, or export it again",
        )
    claimed = document.pop("content_sha256", None)
    if claimed != _digest(document) or _text({**document, "content_sha256": claimed}).encode() != path.read_bytes():
        raise VerificationError(
            f"{path} must match its own SHA-256, got a changed manifest",
            "get the bundle again from where it was made, or export it again",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BundleError(
            f"{path}: {where}: {first['msg']}, got {quoted(first['input'])}{more}", "export the bundle again"
        ) from None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file of `folder` with the manifest: none missing, none extra, each byte as it was.

    Raises:
        VerificationError: a file differs; the message names the first.
    """
    hint = "get the bundle again from where it was made, or export it again"
    found = {path.relative_to(folder).as_posix() for path in _walk(folder)} - {MANIFEST, SIGNATURE}
    named = {file.path for file in manifest.files}
    if extra := sorted(found - named):
        raise VerificationError(f"bundle {folder} must hold only the files of its manifest, got {quoted(extra[0])}", hint)
    if missing := sorted(named - found):
        raise VerificationError(f"bundle {folder} must hold {quoted(missing[0])}, got none", hint)
    for file in manifest.files:
        entry = hash_file(folder, folder / file.path)
        if entry != file:
            raise VerificationError(f"{folder / file.path} must have SHA-256 {file.sha256[:12]}…, got {entry.sha256[:12]}…", hint)


def hash_file(folder: Path, path: Path) -> BundleFile:
    """Return the record of `path`, a file inside `folder`."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return BundleFile(path=path.relative_to(folder).as_posix(), sha256=digest, size_bytes=path.stat().st_size)


def hash_files(folder: Path) -> tuple[BundleFile, ...]:
    """Return the records of all files below `folder` without the manifest, in the order of their paths."""
    return tuple(hash_file(folder, path) for path in sorted(_walk(folder)) if path not in (folder / MANIFEST, folder / SIGNATURE))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder`. A link or a device is refused, because it could lead out of the bundle."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerificationError(
                f"bundle {folder} must hold plain files only, got {quoted(path.relative_to(folder).as_posix())}",
                "copy it with cp -rL",
            )
        if path.is_file():
            yield path


def _parse(path: Path, folder: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("too large")
        document = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
        _text(document)  # a number like 1e999 parses, and is no JSON number
    except (ValueError, RecursionError):
        raise BundleError(
            f"{path} must be a JSON document, got something damaged", f"get the bundle again: {folder} cannot be used"
        ) from None
    if not isinstance(document, dict):
        raise BundleError(f"{path} must hold a JSON object, got {type(document).__name__}", "export the bundle again")
    return document


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
