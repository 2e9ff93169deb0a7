"""Keeps what libraries say about themselves off the user's screen."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide warnings and log lines below ERROR inside the block. Exceptions pass, and so does what anyone prints.

    All loggers are silenced at once. Compiler libraries have hundreds, and setting the level of one clears the caches of all.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
