"""Compilers fail in their own words; autocut tells it in its own."""

from __future__ import annotations

import logging
import warnings

import pytest

from autocut.errors import CompilerError, InfeasibleRecipeError, OutOfMemoryError
from autocut.stages.compilers import quietly, translated


@pytest.mark.parametrize("raised", [RuntimeError("no kernel\nat line 3"), AttributeError("no kernel"), AssertionError("no kernel")])
def test_compiler_failure_ends_one_trial_with_its_first_line(raised: Exception):
    """The rest of the message is a page of C++."""
    with pytest.raises(CompilerError, match=rf"^Inductor failed: {type(raised).__name__}: no kernel$"), translated("Inductor"):
        raise raised


@pytest.mark.parametrize(
    "raised", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")]
)
def test_lack_of_memory_is_told_as_such(raised: Exception):
    """A smaller model may fit, so it is not the compiler's fault."""
    with pytest.raises(OutOfMemoryError), translated("Inductor"):
        raise raised


@pytest.mark.parametrize("raised", [InfeasibleRecipeError("no layer"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_not_the_compilers_passes(raised: BaseException):
    """A full disk ends the search, and Ctrl-C too."""
    with pytest.raises(type(raised)), translated("Inductor"):
        raise raised


def test_libraries_are_quiet_inside_and_restored_after():
    """The user's screen shows the search, not torch's deprecations."""
    logger = logging.getLogger("torch.anything")
    logger.setLevel(logging.INFO)

    with quietly():
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)

    assert logger.level == logging.INFO
