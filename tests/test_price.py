"""Prices: the shipped sheet, the machines that it fits, and arithmetic with money."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.errors import FaultsError, InputError, UnknownNameError
from autocut.price import (
    Host,
    Price,
    break_even_predictions,
    fit,
    fit_hint,
    gpus_of,
    host_of,
    load_prices,
    price_for,
    usd_for,
    usd_per_million,
)

POSITIVE = st.floats(1e-4, 1e4)


GENOA = Host("AMD EPYC", "AuthenticAMD 25/17", "x86_64", 2)
SAPPHIRE = Host("Intel(R) Xeon(R) Processor", "GenuineIntel 6/143", "x86_64", 2)


def test_every_price_is_dated_and_names_its_source():
    """A price without a day is no price."""
    sheet = load_prices()

    assert {prices.cloud for prices in sheet.sheets} == {"AWS", "Google Cloud", "Azure"}
    assert all(re.match(r"20\d\d", prices.date) and "github.com/" in prices.source for prices in sheet.sheets)


def test_instances_of_older_studies_keep_their_price_and_date():
    """A study has one price: with another one, `search` would refuse to go on with it."""
    old = "t3.micro c7i.large c7i.xlarge c7g.xlarge c8g.xlarge m7i.large m7g.large g4dn.xlarge g5.xlarge g6.xlarge g6e.xlarge"

    assert load_prices().price("c7i.large") == Price("c7i.large", 0.08925, "2026-07-20", 1.0)
    assert {load_prices().price(name).date for name in (*old.split(), "inf2.xlarge", "p5.48xlarge")} == {"2026-07-20"}


def test_an_instance_with_the_same_processor_and_cores_fits():
    """Then dollars hold, and nothing is said."""
    assert fit(price_for("c7i.large"), SAPPHIRE) is None
    assert fit(price_for("c7a.large"), GENOA) is None


@pytest.mark.parametrize(
    "host",
    [
        GENOA,
        Host("Intel(R) Xeon(R) Processor", "GenuineIntel 6/106", "x86_64", 2),
        Host("Intel(R) Xeon(R) Processor", "GenuineIntel 6/143", "x86_64", 64),
        Host("Neoverse-V1", "0x41/0xd40", "aarch64", 2),
        Host("Apple M3", "", "aarch64", 2),
    ],
    ids=["another vendor", "another generation", "other cores", "another architecture", "a machine without a known processor"],
)
def test_a_machine_of_another_kind_is_told_that_dollars_may_not_hold(host):
    """The price of one machine must not be put on another one without a word."""
    told = fit(price_for("c7i.large"), host)

    assert told is not None
    assert told.startswith(
        "ratios hold, dollars may not: prices are of c7i.large (Intel Sapphire Rapids, 2 vCPU), this machine is "
    )
    assert told.endswith(f", {host.cores} cores")


def test_the_users_own_price_fits_every_machine():
    """Who gives the price says that it is this machine's."""
    assert fit(price_for("c7i.large", price_per_hour=0.2), GENOA) is None


@pytest.mark.parametrize(("gpu", "fits"), [("NVIDIA L4", True), ("NVIDIA L40S", False), ("Tesla T4", False), (None, False)])
def test_an_accelerator_must_be_the_same_model(gpu, fits):
    """An L40S is no L4, although its name begins alike."""
    host = Host("AMD EPYC 7R13 Processor", "AuthenticAMD 25/1", "x86_64", 4, gpu)

    assert (fit(price_for("g6.xlarge"), host) is None) == fits


@pytest.mark.parametrize(("gpus", "fits"), [(8, True), (1, False), (None, True)])
def test_a_machine_must_have_as_many_accelerators(gpus, fits):
    """A part of such a machine has another price; facts of an earlier study count none."""
    host = Host("AMD EPYC", "AuthenticAMD 25/1", "x86_64", 192, "NVIDIA H100 80GB HBM3", gpus)

    assert (fit(price_for("p5.48xlarge"), host) is None) == fits


def test_the_gpus_of_an_instance_are_counted():
    """Inferentia is none, and a name that nobody knows has none."""
    assert [gpus_of(name) for name in ("c7i.large", "g6.xlarge", "p5.48xlarge", "inf2.xlarge", "c7i.larg")] == [0, 1, 8, 0, 0]
    assert "192 vCPU, 8 x NVIDIA H100" in fit(price_for("p5.48xlarge"), GENOA)


def test_a_name_around_the_gpus_model_does_not_matter():
    """Drivers add the form and the memory to the name."""
    host = Host("Intel(R) Xeon(R) Platinum 8275CL", "GenuineIntel 6/85", "x86_64", 96, "NVIDIA A100-SXM4-40GB")

    assert fit(price_for("p4d.24xlarge"), host) is None


@pytest.mark.parametrize(
    ("machine", "host"),
    [
        ({"cpu": "AMD EPYC 25/17/1", "architecture": "x86_64", "cores": 2, "gpu": None}, GENOA),
        ({"cpu": "Intel(R) Xeon(R) Processor 6/143/8", "architecture": "x86_64", "cores": 2}, SAPPHIRE),
        ({"cpu": "aarch64", "architecture": "aarch64", "cores": 4}, Host("aarch64", "", "aarch64", 4)),
    ],
)
def test_the_facts_of_a_study_describe_its_host(machine, host):
    """Studies of older versions keep the processor in words."""
    assert host_of(machine) == host


def test_the_hint_names_an_instance_that_fits():
    """What it says to type silences the note."""
    assert fit_hint(GENOA).startswith("--instance c7a.large fits it")
    assert fit_hint(Host("Apple M3", "", "aarch64", 8)) == "--price-per-hour takes the price of this machine"


def test_every_instance_has_processors_of_one_architecture():
    """An instance is bought for what it runs: x86 code or Arm code."""
    sheet = load_prices()

    for name, instance in sheet.instances.items():
        assert len({sheet.processors[processor].architecture for processor in instance.processors}) == 1, name


def test_an_unknown_instance_gets_the_nearest_name():
    """Never a default price."""
    with pytest.raises(UnknownNameError) as caught:
        price_for("c7i.lrage")
    assert caught.value.hint == "did you mean 'c7i.large'?"


def test_the_users_own_price_needs_no_instance():
    """Prices change, and machines are rented elsewhere."""
    price = price_for("whatever", 0.5, 0.25)
    assert (price.usd_per_hour, price.utilization) == (0.5, 0.25)
    assert "whatever" not in price.instance


@pytest.mark.parametrize(
    ("price", "utilization"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, 1.5), (1.0, float("nan"))]
)
def test_what_cannot_be_a_price_is_refused(price, utilization):
    """Otherwise a division by zero would follow."""
    with pytest.raises(InputError, match="must be above 0"):
        price_for("c7i.large", price, utilization)


SHEET = """schema_version = 2
currency = "EUR"
[processors]
"Mine" = { architecture = "x86_64", ids = ["Mine 1/2"] }
[[sheets]]
cloud = "mine"
region = "cellar"
date = "yesterday"
sourc = "z"
[sheets.instances]
"a" = { usd_per_hour = -1, vcpus = 2, memory_gib = 1, processors = ["Mine"] }
"""


def test_every_fault_of_a_sheet_is_reported_at_once(tmp_path):
    """One reading reports all of them."""
    sheet = tmp_path / "mine.toml"
    sheet.write_text(SHEET)
    with pytest.raises(FaultsError) as caught:
        load_prices(sheet)
    told = " ".join(map(str, caught.value.faults))
    assert all(word in told for word in ("currency", "sourc", "sheets.0.source", "date", "instances.a.usd_per_hour"))


def test_a_sheet_must_know_the_processors_that_it_names(tmp_path):
    """A mistyped processor would fit no machine, and nobody would know why."""
    sheet = tmp_path / "mistyped.toml"
    sound = SHEET.replace("EUR", "USD").replace("yesterday", "2026-01-31").replace("sourc =", "source =").replace("-1", "1")
    sheet.write_text(sound.replace('["Mine"]', '["Mime"]'))

    with pytest.raises(FaultsError) as caught:
        load_prices(sheet)
    assert "Mime" in str(caught.value.faults[0])


def test_a_sheet_that_is_no_toml_is_an_error(tmp_path):
    """A missing file is one fault, too."""
    broken = tmp_path / "broken.toml"
    broken.write_text("date = ")
    for path in (broken, tmp_path / "missing.toml"):
        with pytest.raises(FaultsError) as caught:
            load_prices(path)
        assert "readable TOML" in str(caught.value.faults[0])


def test_the_literatures_example_comes_out():
    """c7g.xlarge at 200 predictions a second, half of the time busy: 0.40 dollars a million."""
    price = price_for("c7g.xlarge", utilization=0.5)
    assert usd_per_million(price.usd_per_hour, 200, price.utilization) == pytest.approx(0.40, abs=0.005)


@given(POSITIVE, POSITIVE, st.floats(0.01, 1))
def test_a_million_predictions_cost_the_hours_they_take(price, throughput, utilization):
    """Oracle: serve a million by the clock."""
    hours = 1e6 / throughput / 3600 / utilization
    assert usd_per_million(price, throughput, utilization) == pytest.approx(hours * price)


def test_training_is_charged_by_the_second():
    """Eight hours of g6.xlarge are 6.44 dollars; utilization is about serving."""
    assert usd_for(price_for("g6.xlarge", utilization=0.1), 8 * 3600) == pytest.approx(6.4384)


@given(POSITIVE, POSITIVE, POSITIVE)
def test_after_break_even_both_ways_cost_the_same(search, baseline, candidate):
    """Oracle: the two bills at that number of predictions."""
    predictions = break_even_predictions(search, baseline, candidate)
    if candidate >= baseline:
        assert predictions is None
    else:
        millions = predictions / 1e6
        assert search + millions * candidate == pytest.approx(millions * baseline)
