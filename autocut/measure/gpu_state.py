"""What a GPU's driver says of it while it is measured: clocks, power, temperature, and who else computes there. Needs pynvml."""

from __future__ import annotations

from autocut.stages.device import Device

_RUNS_FREELY = 0x1
"""Of the reasons for lower clocks, the one that says that nothing runs (`nvmlClocksThrottleReasonGpuIdle`)."""


def gpu_state(device: Device) -> dict[str, str | int | float | bool | None]:
    """Return what NVML knows of `device`, with units in the names; the kind and the model alone where nvidia-ml-py is missing.

    `gpu_is_throttled` says whether the driver keeps the clocks down for heat, power, or because an administrator wants it.
    Nothing is returned for the processor.
    """
    if device.is_cpu:
        return {}
    known: dict[str, str | int | float | bool | None] = {"gpu_kind": device.kind, "gpu_name": device.name}
    if device.kind != "cuda":
        return known
    try:
        import pynvml
    except ImportError:
        return known
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{device.identity}")
        return known | {
            "gpu_capability": device.capability,
            "gpu_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "gpu_highest_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "gpu_power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "gpu_power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
            "gpu_temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "gpu_is_throttled": bool(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & ~_RUNS_FREELY),
            "gpu_processes": len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }
    except pynvml.NVMLError as error:
        return known | {"gpu_state": f"NVML: {error}"}
