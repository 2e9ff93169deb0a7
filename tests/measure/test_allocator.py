"""Memory that a timed model has used stays with its process, in each of its threads."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from autocut.measure import allocator
from autocut.measure.allocator import keep_memory

_PAGE = 4096
_BLOCK = 40_000_000
"""Bytes; glibc gives blocks of more than 32 MB back when they are freed."""
_FAULTS = f"""
import ctypes, resource, threading

def call():  # it holds two blocks at once, as a layer holds its inputs and its outputs
    blocks = [bytearray({_BLOCK}), bytearray({2 * _BLOCK})]
    del blocks[0]
    del blocks

def faults():
    for _ in range(3):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        call()
    found.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)

found = []
faults()
thread = threading.Thread(target=faults)
thread.start()
thread.join()
print(*found)
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is the C library of Linux")


def _faults_per_call(code: str, environment: dict[str, str] | None = None) -> list[float]:
    """Page faults of a call in the first thread of a process that has run `code`, and in another thread of it."""
    ran = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}\n{_FAULTS}"], capture_output=True, text=True, check=True, env=environment
    )
    return [float(number) for number in ran.stdout.split()]


def test_a_call_gets_fresh_pages_each_time_unless_memory_is_kept():
    """Each call holds 120 MB. `serve.py` is given this very function, so it runs without autocut here."""
    pages = 3 * _BLOCK / _PAGE
    assert min(_faults_per_call("")) > 0.9 * pages
    assert max(_faults_per_call(f"{inspect.getsource(keep_memory)}\nassert keep_memory()")) < 0.01 * pages


def test_variables_do_the_same_for_other_programs():
    """The README of a bundle names them."""
    assert max(_faults_per_call("", allocator.ENVIRONMENT)) < 0.01 * 3 * _BLOCK / _PAGE


def test_a_c_library_that_cannot_is_no_error(monkeypatch):
    """Such as musl's, or that of macOS."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert keep_memory() is False
