"""The kind of this machine's processor, from the text that the kernel shows."""

import pytest

from autocut.measure.processor import processor_kind, this_host

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Processor\n"
GRAVITON3 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(("cpuinfo", "kind"), [(INTEL, "GenuineIntel 6/143"), (GRAVITON3, "0x41/0xd40"), ("", "")])
def test_the_kind_is_read_where_the_kernel_tells_it(cpuinfo, kind):
    """Virtual machines hide the name of the model, but neither family nor part."""
    assert processor_kind(cpuinfo) == kind


def test_this_machine_has_cores_and_an_architecture():
    """A price sheet compares both."""
    host = this_host()

    assert host.cores >= 1
    assert host.architecture
