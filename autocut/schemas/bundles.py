"""Documents about bundles."""

from __future__ import annotations

from autocut.schemas.document import Document, Part


class ExportDocument(Document):
    """`autocut export --json`: `bundle` is the folder that was written."""

    study: str
    trial: int
    bundle: str


class CheckedClaim(Part):
    """One claim of a bundle, what was found, and both in one sentence.

    `claim_value` and `found_value` are the numbers in full, null where there is none: a metric, bytes, milliseconds, predictions a
    second; of the outputs, the deviation that is allowed and the one that was found.
    """

    name: str
    claim: str
    found: str
    ok: bool
    message: str
    claim_value: float | None = None
    found_value: float | None = None


class VerifyDocument(Document):
    """`autocut verify --json`. The exit code is 1 unless `ok`."""

    bundle: str
    ok: bool
    checks: tuple[CheckedClaim, ...]
