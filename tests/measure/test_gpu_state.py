"""What NVML says of a GPU, told by a library that is made up."""

import sys
from types import SimpleNamespace

import pytest

from autocut.measure.gpu_state import gpu_state
from autocut.stages.device import CPU, Device


class NvmlError(Exception):
    """What the library raises."""


@pytest.fixture
def nvml(monkeypatch):
    """A library that knows one GPU, by the name that it has for it."""
    known = SimpleNamespace(
        NVMLError=NvmlError, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0, nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={"GPU-6b1c": "handle"}.__getitem__,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1200, nvmlDeviceGetMaxClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetPowerUsage=lambda handle: 310_500, nvmlDeviceGetEnforcedPowerLimit=lambda handle: 700_000,
        nvmlDeviceGetTemperature=lambda handle, sensor: 64, nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x5,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: ["ours", "another"],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", known)
    for name, value in {"identity": "6b1c", "name": "NVIDIA H200", "capability": "9.0"}.items():
        monkeypatch.setattr(Device, name, value)
    return known


def test_clocks_power_and_neighbours_are_told_with_their_units(nvml):
    """That nothing runs is no reason to call a GPU throttled; power is one."""
    state = gpu_state(Device("cuda"))

    assert state["gpu_name"] == "NVIDIA H200"
    assert (state["gpu_clock_mhz"], state["gpu_highest_clock_mhz"], state["gpu_power_w"]) == (1200, 1980, 310.5)
    assert (state["gpu_is_throttled"], state["gpu_processes"]) == (True, 2)
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x1
    assert gpu_state(Device("cuda"))["gpu_is_throttled"] is False


def test_a_driver_that_does_not_answer_is_told(nvml):
    """And ends nothing: these are remarks."""

    def fail():
        raise NvmlError("Driver Not Loaded")

    nvml.nvmlInit = fail

    assert gpu_state(Device("cuda")) == {"gpu_kind": "cuda", "gpu_name": "NVIDIA H200", "gpu_state": "NVML: Driver Not Loaded"}


def test_without_the_library_the_model_alone_is_known(nvml, monkeypatch):
    """The processor has no such state."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert gpu_state(Device("cuda")) == {"gpu_kind": "cuda", "gpu_name": "NVIDIA H200"}
    assert gpu_state(CPU) == {}
