"""The device that a bundle was made for, and the refusal of a bundle where that is not."""

from __future__ import annotations

from autocut.deploy.manifest import Manifest, ServedOn
from autocut.errors import BundleError
from autocut.stages import lowering
from autocut.stages.compile import BY_DEVICE
from autocut.stages.device import CPU, Device

_HINT = "load it where it was measured, or search on this machine"


def served_on(device: Device) -> ServedOn | None:
    """Return what a manifest says of the device that serves its model; None for the processor, which `environment` names."""
    return None if device.is_cpu else ServedOn(kind=device.kind, name=device.name, capability=device.capability)


def device_named(manifest: Manifest) -> Device:
    """Return the kind of device that a bundle is for. Nothing is opened or compared."""
    return CPU if manifest.served_on is None else Device(manifest.served_on.kind)


def device_of(manifest: Manifest) -> Device:
    """Return the device of a bundle, opened in this process.

    Raises:
        BundleError: this machine has no such device, or the bundle holds machine code for another compute capability.
        InputError: the device cannot be opened.
    """
    claim = manifest.served_on
    if claim is None:
        return CPU
    made_for = f"{claim.kind} ({claim.name})"
    if claim.kind not in BY_DEVICE:
        raise BundleError(f"bundle must be for {' or '.join(BY_DEVICE)}, got {made_for}", "use the autocut that wrote it")
    device = Device(claim.kind)
    if reason := device.missing():
        raise BundleError(f"bundle must be loaded on the device that it was made for, {made_for}, got none: {reason}", _HINT)
    device.open(serves=True)
    if lowering.is_compiled_ahead(manifest.mode, device) and claim.capability != device.capability:
        found = f"{device.capability} ({device.name})"
        raise BundleError(f"bundle must run on compute capability {claim.capability}, for which it is compiled, got {found}", _HINT)
    return device
