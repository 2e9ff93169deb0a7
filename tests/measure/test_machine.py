"""What a result says about the machine that made it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from autocut.measure import machine as module
from autocut.measure.machine import describe_machine, machine_fingerprint


@pytest.fixture
def as_if(monkeypatch):
    """Fingerprint of a machine that differs from this one in the given fields."""
    here = describe_machine()

    def fingerprint(**changes):
        monkeypatch.setattr(module, "describe_machine", lambda: replace(here, **changes))
        return machine_fingerprint.__wrapped__()

    return fingerprint


def test_the_description_is_plain_json():
    """It goes into the study and into every manifest."""
    described = json.loads(json.dumps(asdict(describe_machine())))
    assert described["cores"] == os.cpu_count()
    assert described["memory_bytes"] > 2**28
    assert described["cpu"]


def test_the_fingerprint_is_the_same_in_another_process():
    """A bundle is verified in a fresh process, and its latency compared only on an equal machine."""
    code = "from autocut.measure.machine import machine_fingerprint as f; import sys; print(f(), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"{machine_fingerprint()} False"


@pytest.mark.parametrize("change", [{"cpu": "another"}, {"cores": 640}, {"instructions": "sse2"}, {"gpu": "H200"}])
def test_other_hardware_has_another_fingerprint(as_if, change):
    """Times of different machines are never compared."""
    assert as_if(**change) != as_if()


@pytest.mark.parametrize(
    "change", [{"memory_bytes": 1}, {"os": "Linux 9"}, {"python": "4"}, {"torch": "3"}, {"governor": "powersave"}]
)
def test_what_results_name_beside_it_is_not_in_the_fingerprint(as_if, change):
    """A kernel update is no other machine."""
    assert as_if(**change) == as_if()


def test_the_fingerprint_is_readable(as_if):
    """It stands in notes and in the README of a bundle."""
    xeon = {"cpu": "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "gpu": None}
    assert as_if(cores=2, **xeon).startswith("Intel Xeon Platinum 8488C, 2 cores (")
    assert as_if(cores=1, **xeon).startswith("Intel Xeon Platinum 8488C, 1 core (")


def test_processors_are_read_from_every_kind_of_cpuinfo():
    """x86 and ARM spell it differently; a hidden name is distinguished by its numbers."""
    x86 = "cpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Processor\nstepping\t: 8\nflags\t: fpu avx2 amx_tile\n"
    assert module._cpu_model(x86) == "Intel(R) Xeon(R) Processor 6/143/8"
    assert module._compute_flags(x86) == ["amx_tile", "avx2"]
    arm = "processor\t: 0\nFeatures\t: fp asimd evtstrm sve bf16 crc32\n"
    assert module._cpu_model(arm)
    assert module._compute_flags(arm) == ["asimd", "bf16", "sve"]
