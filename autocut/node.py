"""What all processes of one user share on one machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def node_folder() -> Path:
    """Return the folder, on this machine's own disk, of what all searches of this user on this machine share, such as locks."""
    return Path(tempfile.gettempdir()) / f"autocut-{os.getuid()}"
