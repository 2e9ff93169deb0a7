"""The one place where keys to the test split are made.

Only `autocut.deploy` may import this module; an import-linter contract in pyproject.toml and a test check it. Finalization measures
the front on the test split, and hands the split to `verify`. No earlier step reads it.
"""

from __future__ import annotations

from autocut.task.splits import _SEAL, FinalizationKey


def issue_finalization_key(reason: str) -> FinalizationKey:
    """Make a key. `reason` says why the test split is read."""
    return FinalizationKey(reason, _SEAL)
