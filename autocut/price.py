"""Money: the price of an hour of a machine, and from it the price of predictions and of training. Arithmetic only, no torch."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autocut.counting import format_count
from autocut.errors import Fault, FaultsError, InputError, unknown_name

SHIPPED_SHEET = Path(__file__).with_name("prices.toml")
OWN_PRICE = "a machine of your own"
"""Takes the place of the instance's name when the user gives the price."""

_HOUR_S = 3600.0
_VENDORS = {"AMD": "AuthenticAMD", "Intel": "GenuineIntel"}

Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Price:
    """Price of the whole machine for an hour, and the share of that hour in which it serves predictions.

    A search compares one process with one process, and charges it with the whole machine. A machine with more processors serves
    more for the same price. So a finalized model, and the untouched one, are measured in copies that fill the machine
    (`measurement.Capacity`), and each is charged by what its best layout serves. Where that was not measured, dollars stay those of
    one process on a machine of its own. A ratio never mixes the two, and does not depend on the price. `date` is the day of the
    price sheet, or "as given".
    """

    instance: str
    usd_per_hour: float
    date: str
    utilization: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an impossible price or utilization."""
        if not (math.isfinite(self.usd_per_hour) and self.usd_per_hour > 0):
            raise InputError(
                f"--price-per-hour must be above 0, got {self.usd_per_hour}", "give US dollars per hour: --price-per-hour 0.09"
            )
        if not 0 < self.utilization <= 1:
            raise InputError(
                f"--utilization must be above 0 and at most 1, got {self.utilization}", "half of the time busy is --utilization 0.5"
            )


@dataclass(frozen=True)
class Host:
    """A machine, as far as a price depends on it.

    `processor` is how /proc/cpuinfo names its kind: vendor and family/model, on Arm implementer/part. `cores` are what the system
    counts as processors, as a cloud counts vCPUs. `gpu` is None for a machine without one.
    `gpus` is their number, None if nobody has counted them.
    """

    name: str
    processor: str
    architecture: str
    cores: int
    gpu: str | None = None
    gpus: int | None = None


def host_of(machine: Mapping[str, Any]) -> Host:
    """Return the host that the facts of a study describe as its `machine`.

    They name an x86 processor with family, model and stepping at the end, such as "AMD EPYC 25/17/1", and say less of others.
    """
    cpu = str(machine.get("cpu", ""))
    found = re.fullmatch(r"(.*?) ?(\d+)/(\d+)/\d+", cpu)
    vendor = next((vendor for word, vendor in _VENDORS.items() if word in cpu), None)
    processor = f"{vendor} {found[2]}/{found[3]}" if found and vendor else ""
    name, cores = (found[1] if found else cpu), int(machine.get("cores", 0))
    return Host(name, processor, str(machine.get("architecture", "")), cores, machine.get("gpu"))


class _Sheet(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Processor(_Sheet):
    """A kind of processor: its architecture, and its names in /proc/cpuinfo (`Host.processor`)."""

    architecture: Literal["x86_64", "aarch64"]
    ids: tuple[str, ...] = Field(min_length=1)


class Instance(_Sheet):
    """A machine for rent. It has one of `processors`, and as many `accelerators` of the kind `accelerator`."""

    usd_per_hour: Usd
    vcpus: int = Field(ge=1)
    memory_gib: float = Field(gt=0)
    processors: tuple[str, ...] = Field(min_length=1)
    accelerator: str | None = None
    accelerators: int = Field(default=1, ge=1)

    @property
    def described(self) -> str:
        """Processor, vCPUs and accelerators, for a person."""
        several = f"{self.accelerators} x " if self.accelerators > 1 else ""
        accelerator = f", {several}{self.accelerator}" if self.accelerator else ""
        return f"{' or '.join(self.processors)}, {self.vcpus} vCPU{accelerator}"


class DatedPrices(_Sheet):
    """What one cloud charged in one region on one day."""

    cloud: str
    region: str
    date: str = Field(pattern=r"^\d{4}(-\d\d(-\d\d)?)?$")
    source: str
    instances: dict[str, Instance] = Field(min_length=1)


class PriceSheet(_Sheet):
    """Dated prices of instances and their processors, read from TOML."""

    schema_version: Literal[2]
    currency: Literal["USD"]
    processors: dict[str, Processor]
    sheets: tuple[DatedPrices, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PriceSheet:
        names = [name for sheet in self.sheets for name in sheet.instances]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"an instance must have one price, got two of {', '.join(sorted(twice))}")
        used = {processor for instance in self.instances.values() for processor in instance.processors}
        if unknown := used - self.processors.keys():
            raise ValueError(f"processors must be those of [processors], got {', '.join(sorted(unknown))}")
        return self

    @property
    def instances(self) -> Mapping[str, Instance]:
        """All instances by name."""
        return {name: instance for sheet in self.sheets for name, instance in sheet.instances.items()}

    def price(self, instance: str, utilization: float = 1.0) -> Price:
        """Return the price of `instance`.

        Raises:
            UnknownNameError: The sheet has no such instance; the hint gives the nearest one.
        """
        for sheet in self.sheets:
            if instance in sheet.instances:
                return Price(instance, sheet.instances[instance].usd_per_hour, sheet.date, utilization)
        raise unknown_name("--instance", instance, self.instances)

    def fits(self, instance: Instance, host: Host) -> bool:
        """Whether `host` has a processor of the same kind as `instance`, as many of them, and its accelerator."""
        kinds = [self.processors[name] for name in instance.processors]
        same_kind = any(host.architecture == kind.architecture and host.processor in kind.ids for kind in kinds)
        return same_kind and host.cores == instance.vcpus and _has_accelerator(host, instance)

    def fitting(self, host: Host) -> Sequence[str]:
        """Return the instances that fit `host`, the cheapest first."""
        fitting = {name: instance for name, instance in self.instances.items() if self.fits(instance, host)}
        return sorted(fitting, key=lambda name: fitting[name].usd_per_hour)

    def described(self, host: Host) -> str:
        """Name the processor, cores and GPU of `host` for a person."""
        known = [name for name, kind in self.processors.items() if host.processor in kind.ids]
        gpu = f", {host.gpu}" if host.gpu else ""
        return f"{known[0] if known else host.name}, {format_count(host.cores, 'core')}{gpu}"


@cache
def load_prices(path: Path = SHIPPED_SHEET) -> PriceSheet:
    """Read a price sheet.

    Raises:
        FaultsError: The file has faults; all of them are listed.
    """
    try:
        return PriceSheet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FaultsError(f"price sheet {path.name}", [Fault(f"it must be a readable TOML file, got: {error}")]) from None
    except ValidationError as error:
        faults = [Fault(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", where=path.name) for fault in error.errors()]
        raise FaultsError(f"price sheet {path.name}", faults) from None


def price_for(instance: str, price_per_hour: float | None = None, utilization: float = 1.0) -> Price:
    """Return the price that the user gave, else the price of `instance` in the shipped sheet.

    Raises:
        UnknownNameError: The price sheet has no such instance.
        InputError: The price or the utilization is impossible.
    """
    if price_per_hour is not None:
        return Price(OWN_PRICE, price_per_hour, "as given", utilization)
    return load_prices().price(instance, utilization)


def fit(price: Price, host: Host) -> str | None:
    """Say why dollars of `price` may not hold on `host`; None where they hold, or where the price is the user's own.

    Ratios between models are measured on `host` and hold there at any price.
    """
    if price.instance == OWN_PRICE:
        return None
    sheet = load_prices()
    instance = sheet.instances.get(price.instance)
    if instance is not None and sheet.fits(instance, host):
        return None
    described = "unknown to the price sheet" if instance is None else instance.described
    return f"ratios hold, dollars may not: prices are of {price.instance} ({described}), this machine is {sheet.described(host)}"


def gpus_of(instance: str) -> int:
    """Return how many NVIDIA GPUs `instance` has; 0 where it has none, or where the sheet does not know it."""
    found = load_prices().instances.get(instance)
    return found.accelerators if found is not None and (found.accelerator or "").startswith("NVIDIA") else 0


def fit_hint(host: Host) -> str:
    """Say what to type for dollars that fit `host`."""
    fitting = load_prices().fitting(host)
    own = "--price-per-hour takes the price of this machine"
    return f"--instance {fitting[0]} fits it, and {own}" if fitting else own


def _has_accelerator(host: Host, instance: Instance) -> bool:
    """Whether `host` has the GPUs of `instance`, as far as is known. Drivers write more around a model: "NVIDIA A100-SXM4-40GB"."""
    if instance.accelerator is None:
        return True
    if host.gpus not in (None, instance.accelerators):
        return False
    model = instance.accelerator.split()[-1]
    return re.search(rf"\b{re.escape(model)}\b", host.gpu or "") is not None


def usd_per_million(price_per_hour: float, throughput_per_s: float, utilization: float = 1.0) -> float:
    """Return the price of a million predictions on a machine that makes `throughput_per_s` predictions a second while busy."""
    return price_per_hour / (_HOUR_S * throughput_per_s * utilization) * 1e6


def usd_for(price: Price, seconds: float) -> float:
    """Return the price of `seconds` of training or searching. A machine that trains is busy, so utilization does not count.

    A training is charged as one process with the whole machine. So its seconds are those that it takes alone, CPU seconds divided
    by its threads, and not by the processors: stages of an earlier autocut have wall seconds, which are the same currency. A search
    is charged its wall seconds.
    """
    return price.usd_per_hour * seconds / _HOUR_S


def break_even_predictions(search_usd: float, baseline_usd_per_million: float, candidate_usd_per_million: float) -> float | None:
    """Return the number of predictions that pay for the search, or None if the candidate is not cheaper than the baseline."""
    saved = baseline_usd_per_million - candidate_usd_per_million
    return search_usd / saved * 1e6 if saved > 0 else None
