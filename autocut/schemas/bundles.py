"""Documents about bundles."""

from __future__ import annotations

from autocut.schemas.document import Document, Part


class ExportDocument(Document):
    """`autocut export --json`: `bundle` is the folder that was written."""

    study: str
    trial: int
    bundle: str


class CheckedClaim(Part):
    """One claim of a bundle, what was found, and both in one sentence."""

    name: str
    claim: str
    found: str
    ok: bool
    message: str


class VerifyDocument(Document):
    """`autocut verify --json`. The exit code is 1 unless `ok`."""

    bundle: str
    ok: bool
    checks: tuple[CheckedClaim, ...]
