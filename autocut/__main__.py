"""Entry point of ``autocut`` and of ``python -m autocut``."""

from __future__ import annotations

import sys

from autocut.cli import main

if __name__ == "__main__":
    sys.exit(main())
