"""The one place where keys to the test split are made.

Only `autocut.deploy` may import this module (an import-linter contract in pyproject.toml, and a test): finalization re-measures
the front on the test split, `verify` measures a bundle on it, and nothing before them reads it.
"""

from __future__ import annotations

from autocut.task.splits import _SEAL, FinalizationKey


def issue_finalization_key(reason: str) -> FinalizationKey:
    """Make a key; `reason` says what the test split is read for."""
    return FinalizationKey(reason, _SEAL)
