"""Money, CO2 and both splits in the manifest and the README of a bundle."""

import dataclasses
import json

import pytest

from autocut.bill import UNTOLD, Bill, Serving
from autocut.deploy.manifest import Economics, Manifest, economics_of, read_manifest
from autocut.deploy.readme import readme
from autocut.measurement import Accuracy, Interval
from autocut.price import Price

BILL = Bill(Price("c7a.large", 0.1, "2026-02-09", 0.5), 2.0, 0.5, 3.0, 0.2)
NOTE = "ratios hold, dollars may not: prices are of c7a.large (AMD EPYC Genoa, 2 vCPU), this machine is Apple M3, 8 cores"


@pytest.fixture
def manifest(made):
    """The manifest of a bundle that was measured with an estimated energy."""
    found = read_manifest(made)
    measurement = dataclasses.replace(
        found.measurement, energy_j_per_prediction=0.36, energy_source="estimate (+-40%): 5 W for each busy thread, no meter"
    )
    return found.model_copy(update={"measurement": measurement})


def text_of(made, manifest, **changes):
    """The README for the manifest with these changes."""
    return readme(made / "model", manifest.model_copy(update=changes))


def test_a_manifest_gives_back_the_bill_that_it_was_made_from():
    """The reader of a bundle gets the numbers of the search."""
    bill = dataclasses.replace(BILL, requests_per_month=3e6)

    assert economics_of(bill, UNTOLD, None, None).bill == bill


def test_what_nobody_told_is_not_written():
    """Older versions read the bundle, as long as it says nothing that they do not know."""
    silent = economics_of(dataclasses.replace(BILL, train_usd=None), UNTOLD, None, None)
    known = "instance price_per_hour price_date utilization usd_per_million baseline_usd_per_million search_usd"

    assert set(silent.model_dump()) == {*known.split(), "break_even_predictions"}
    assert Economics.model_validate(silent.model_dump()) == silent


def test_a_bundle_of_an_older_version_is_read(made):
    """It names neither the validation split nor what a month costs."""
    document = json.loads((made / "manifest.json").read_text())
    del document["content_sha256"]

    assert "validation" not in document
    assert Manifest.model_validate(document).validation is None


def test_the_readme_tells_the_bill_and_that_dollars_may_not_hold(made, manifest):
    """Each line of the bill, and the note of a machine that the price is not of."""
    bill = dataclasses.replace(BILL, requests_per_month=100e6)
    text = text_of(made, manifest, economics=economics_of(bill, UNTOLD, None, NOTE))

    assert all(f"- {line[0].upper()}{line[1:]}.\n" in text for line in (*bill.lines, NOTE))
    assert "On c7a.large at $0.1 per hour (price of 2026-02-09, utilization 50%)" in text
    assert "What the search cost is what it had spent when this bundle was made." in text


def test_the_readme_labels_energy_and_co2_with_their_sources(made, manifest):
    """An estimate is called one, and the grid is somebody's."""
    told = text_of(made, manifest, economics=economics_of(BILL, Serving(None, 100.0, "as given"), 0.36, None))

    assert "| energy of a prediction (estimate (+-40%): 5 W for each busy thread, no meter) | 0.36 J | |" in told
    assert "| CO2 of a million predictions (100 g per kWh: as given) | 10 g | |" in told
    assert "CO2" not in text_of(made, manifest, economics=None)


def test_the_readme_names_the_accuracy_of_both_splits(made, manifest):
    """The split that the search chose by looks better than it is; a reader sees which one is which."""
    chosen_by = Accuracy("validation", 60, Interval(0.75, 0.6, 0.9), Interval(0.05, -0.01, 0.11))
    text = text_of(made, manifest, validation=chosen_by)

    assert "| accuracy (test, 48 examples) |" in text
    assert "| accuracy (validation, 60 examples; the search chose by it) | 0.7500 | 0.6000 to 0.9000 |" in text
    assert "| its difference to the untouched model (validation) | +0.0500 | -0.0100 to +0.1100 |" in text


def test_the_readme_tells_what_a_reader_must_know_of_its_numbers(made, manifest):
    """A disturbed timing says so; a calm one has no note."""
    cost = manifest.measurement.cost
    latencies = tuple(dataclasses.replace(latency, disturbance=1.7) for latency in cost.latencies)
    disturbed = dataclasses.replace(manifest.measurement, cost=dataclasses.replace(cost, latencies=latencies))
    calm = tuple(dataclasses.replace(latency, disturbance=1.0, load=None) for latency in cost.latencies)

    told = text_of(made, manifest, measurement=disturbed)
    assert "**Note:** Other work disturbed the timing at batch size 16, by a factor of 1.7." in told
    quiet = dataclasses.replace(manifest.measurement, cost=dataclasses.replace(cost, latencies=calm))
    assert "**Note:**" not in text_of(made, manifest, measurement=quiet)
