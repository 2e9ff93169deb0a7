"""Runs a command line of autocut that ends with the process that wants it: ``python -m autocut.api.attached PARENT WORDS``.

That process raises the error of the document that it gets, so stderr does not tell it too.
"""

from __future__ import annotations

import sys

from autocut.cli import main
from autocut.measure.parent_death import die_with

if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    sys.exit(main(tells_errors=False))
