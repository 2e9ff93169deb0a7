"""The base of every document, and the document of an error."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autocut.errors import AutocutError, Fault, FaultsError, in_parts


class Part(BaseModel):
    """A part of a document. It cannot be changed."""

    model_config = ConfigDict(frozen=True)


def _require_version(schema: dict[str, Any]) -> None:
    """Every document has its version, although the record fills it in."""
    schema["required"] = ["schema_version", *schema.get("required", [])]


class Document(Part):
    """One JSON document of a verb. A field with a default may be missing: of an older version, or where it does not apply."""

    model_config = ConfigDict(json_schema_extra=_require_version)

    schema_version: Literal[1] = 1

    def plain(self) -> dict[str, Any]:
        """Return the document as plain values."""
        return self.model_dump(mode="json")


class FaultPart(Part):
    """One fault of an input: what is wrong, what to type instead, and where (a file and line)."""

    message: str
    hint: str | None
    where: str | None

    @classmethod
    def of(cls, fault: Fault) -> FaultPart:
        """Describe `fault`."""
        return cls(message=fault.message, hint=fault.hint, where=fault.where)


class ErrorPart(Part):
    """Why a command failed.

    `kind` is the name of the class in `autocut.errors`; "Interrupted" for Ctrl-C and SIGTERM, "Bug" for a bug in autocut.
    `subject`, `rule` and `value` are the parts of `message`; null where it has another form. `hint` says what to type. `faults` has
    all faults of an input that has several.
    """

    kind: str
    exit_code: int
    message: str
    subject: str | None
    rule: str | None
    value: str | None
    hint: str | None
    faults: tuple[FaultPart, ...]


class ErrorDocument(Document):
    """What `--json` prints instead of a verb's own document, if the verb fails."""

    error: ErrorPart


def error_document(error: AutocutError) -> ErrorDocument:
    """Describe an error for a program."""
    faults = error.faults if isinstance(error, FaultsError) else ()
    return failure_document(type(error).__name__, error.exit_code, error.message, error.hint, tuple(map(FaultPart.of, faults)))


def failure_document(
    kind: str, exit_code: int, message: str, hint: str | None = None, faults: tuple[FaultPart, ...] = ()
) -> ErrorDocument:
    """Describe the end of a command that did not do what was asked."""
    parts = in_parts(message)
    error = ErrorPart(
        kind=kind,
        exit_code=int(exit_code),
        message=message,
        subject=parts.subject,
        rule=parts.rule,
        value=parts.value,
        hint=hint,
        faults=faults,
    )
    return ErrorDocument(error=error)
