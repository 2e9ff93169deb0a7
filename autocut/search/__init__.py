"""The search: what decides. It knows no torch, no Ray and no process.

`state` holds everything that a search has learned, `settings` what stays fixed. Small policies read both and return decisions:
what runs without being proposed (`opening`), which ideas of the sampler run (`proposing`, `acquisition`), and judgements about
recipes (`lowerings`, `estimates`, `early_stopping`, `finalists`). `agent` asks the policies in order; `results` tells
the study, the sampler and the user how each recipe ended.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The module `autocut.search`. A call of it is `autocut.api.search`, because Python keeps both under one name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call `autocut.api.search`."""
        return importlib.import_module("autocut.api").search(*arguments, **options)


sys.modules[__name__].__class__ = _Room
