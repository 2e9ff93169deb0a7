"""Money of a search: facts that may change later, and what the user reads."""

import dataclasses
import types

import pytest

from autocut.bill import UNTOLD, bill_lines, price_note, serving_of
from autocut.config import SearchConfig
from autocut.execution import money
from autocut.front import FrontPoint
from autocut.measurement import Accuracy, Cost, Interval, Measurement
from autocut.price import Host
from autocut.recipe import Recipe

GENOA = Host("AMD EPYC", "AuthenticAMD 25/17", "x86_64", 2)


class Facts:
    """A study, as far as money needs it."""

    def __init__(self):
        self.facts = {"price": {"instance": "c7i.large", "usd_per_hour": 0.09, "date": "2026-07-20", "utilization": 1.0}}

    def describe(self, facts):
        """Keep the facts."""
        self.facts |= facts


class Timing:
    """What finalization found, as far as the bill needs it."""

    def __init__(self, usd_per_million):
        self.values = {"usd_per_million": usd_per_million, "train_usd": 0.01}
        self.measurement = types.SimpleNamespace(capacity=None, charged_by="one process is charged with the whole machine")


@pytest.fixture
def study(monkeypatch):
    """A new study on a machine with two cores of an AMD EPYC Genoa."""
    monkeypatch.setattr(money, "this_host", lambda: GENOA)
    return Facts()


def describe(study, instance="c7i.large", **told):
    """Start a search of `study` with these flags."""
    money.describe_money(study, SearchConfig(None, 60.0, instance=instance, **told))


def a_point(usd_per_million):
    """A measured point, of which the bill needs the values alone."""
    accuracy = Accuracy("validation", 10, Interval(0.9, 0.8, 1.0))
    values = {"usd_per_million": usd_per_million, "train_usd": 0.01}
    return FrontPoint(1, Recipe(), values, Measurement(accuracy, Cost((), 1, 1, 1, 1.0, "m")), is_baseline=False, bundle=None)


def test_the_plan_says_that_the_price_is_of_another_machine_and_what_to_type(study):
    """Before hours are spent."""
    describe(study)

    line = money.plan_lines(price_note(study.facts))[0]
    assert "c7i.large (Intel Sapphire Rapids, 2 vCPU), this machine is AMD EPYC Genoa, 2 cores" in line
    assert "--instance c7a.large" in line
    assert "--price-per-hour" in line


@pytest.mark.parametrize("told", [{"instance": "c7a.large"}, {"price_per_hour": 0.2}])
def test_a_fitting_instance_or_the_users_price_silences_it(study, told):
    """Then dollars are those of this machine."""
    describe(study, **told)

    assert money.plan_lines(price_note(study.facts)) == []
    assert price_note(study.facts) is None


def test_on_a_cluster_nobody_knows_the_machines(study):
    """The machine that starts the search is not the one that times models: silence would be a lie."""
    describe(study, instance="c7a.large", ray_address="auto")

    assert "were not compared with it" in price_note(study.facts)


def test_requests_and_grid_change_without_a_new_study(study):
    """No stored number depends on them."""
    describe(study)
    assert serving_of(study.facts) == UNTOLD
    describe(study, requests_per_month=3e6, grid_intensity=30.0)
    describe(study)
    assert serving_of(study.facts).requests_per_month == 3e6
    describe(study, requests_per_month=5e6)
    assert serving_of(study.facts) == UNTOLD.told(5e6, 30.0)


def test_the_search_ends_with_the_bill(study):
    """An hour at 9 cents, paid back by 1.5 dollars a million."""
    describe(study, requests_per_month=1e6)

    lines = bill_lines(study.facts, 3600.0, a_point(2.0), a_point(0.5))
    told = "money by the timing of the search: $0.500 per million predictions, $2.00 untouched; the search cost $0.0900"
    assert lines[0].startswith(told)
    assert "the search has paid for itself after 60,000 predictions, 1.8 days" in lines
    assert bill_lines(study.facts, 3600.0, None, a_point(0.5)) == []


def test_the_final_timing_makes_the_bill_where_there_is_one(study):
    """Then the bill is that of the bundle, and it says so."""
    describe(study, instance="c7a.large")
    timed_twice = dataclasses.replace(a_point(0.5), final=Timing(0.8))

    assert bill_lines(study.facts, 3600.0, a_point(2.0), timed_twice)[0].startswith("money by the final timing: $0.800 per million")


def test_the_untouched_model_has_no_bill(study):
    """Nothing is saved, and no search was needed."""
    describe(study)

    assert bill_lines(study.facts, 3600.0, a_point(2.0), a_point(2.0)) == []
