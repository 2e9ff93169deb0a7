"""The study: Optuna's trials and autocut's own tables in one database, under one folder.

    <folder>/study.db ........ SQLite (or study.json, which names a database server)
    <folder>/stages/ ......... the stage cache
    <folder>/bundles/ ........ deployable models
    <folder>/artifacts/ ...... files for download on the dashboard
    <folder>/searches/ ....... a lock of each search that is alive

The database is the only source of truth. Readers ignore what a killed process left incomplete.
"""

from __future__ import annotations

from autocut.front import Final
from autocut.study.database import public_address, storage_errors, without_passwords
from autocut.study.emptiness import is_empty
from autocut.study.ledger import CATEGORIES, Session
from autocut.study.opening import create_study, is_study, open_study, stored_facts, stored_space, where_studies_are
from autocut.study.records import StageRun
from autocut.study.study import Study
from autocut.study.trials import TrialRecord

__all__ = [
    "CATEGORIES",
    "Final",
    "Session",
    "StageRun",
    "Study",
    "TrialRecord",
    "create_study",
    "is_empty",
    "is_study",
    "open_study",
    "public_address",
    "storage_errors",
    "stored_facts",
    "stored_space",
    "where_studies_are",
    "without_passwords",
]
