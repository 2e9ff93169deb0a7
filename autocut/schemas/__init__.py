"""The JSON documents that `--json` prints, as typed records, and their schemas.

`DOCUMENTS` has one line for each document: the name that `autocut schema NAME` takes, and the record. The schema is generated from
the record, so the two cannot differ. `tests/schemas` compares what every verb prints with its schema.

**To publish the document of a new verb**: write a record here, derived from `Document`, and add its line to `DOCUMENTS`. The verb
either builds the record and calls ``console.document(record.plain())``, or prints a dictionary that fits the schema.

**What a program can rely on**: stdout has exactly one document, whatever the exit code is. Within one `schema_version` fields are
added, and never removed, renamed or given another type. So a reader must ignore fields that it does not know. A number that is not
finite is null.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autocut.errors import unknown_name

if TYPE_CHECKING:
    from autocut.schemas.document import Document

DOCUMENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "search": ("autocut.schemas.studies", "SearchDocument"),
        "dry-run": ("autocut.schemas.tasks", "DryRunDocument"),
        "check": ("autocut.schemas.tasks", "CheckDocument"),
        "methods": ("autocut.schemas.tasks", "MethodsDocument"),
        "front": ("autocut.schemas.studies", "FrontDocument"),
        "select": ("autocut.schemas.studies", "SelectDocument"),
        "explain": ("autocut.schemas.attribution", "ExplainDocument"),
        "compare": ("autocut.schemas.attribution", "CompareDocument"),
        "remeasure": ("autocut.schemas.attribution", "RemeasureDocument"),
        "report": ("autocut.schemas.attribution", "ReportDocument"),
        "export": ("autocut.schemas.bundles", "ExportDocument"),
        "verify": ("autocut.schemas.bundles", "VerifyDocument"),
        "ledger": ("autocut.schemas.studies", "LedgerDocument"),
        "dashboard": ("autocut.schemas.studies", "DashboardDocument"),
        "error": ("autocut.schemas.document", "ErrorDocument"),
    }
)
"""Name of each document -> module and name of its record. A verb's document has the verb's name."""


def record(name: str) -> type[Document]:
    """Return the record of a document.

    Raises:
        UnknownNameError: no document has this name.
    """
    if name not in DOCUMENTS:
        raise unknown_name("document", name, DOCUMENTS)
    module, record_name = DOCUMENTS[name]
    found: type[Document] = getattr(importlib.import_module(module), record_name)
    return found


def schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a document, draft 2020-12.

    Raises:
        UnknownNameError: no document has this name.
    """
    described = record(name).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}
