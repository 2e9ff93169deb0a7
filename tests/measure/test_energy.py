"""Energy: a meter where there is one, otherwise an estimate that says so."""

import pytest

from autocut.measure.energy import Meter, estimate_energy, find_meters, measure_energy
from autocut.measurement import Cost, Interval, Latency


def a_cost(p50_ms=8.0, batch_size=32, threads=2):
    """Batch sizes 1 and one more."""
    one = Interval(1, 1, 1)
    latencies = (
        Latency(1, 64, one, None, None, 1, one, 1),
        Latency(batch_size, 64, Interval(p50_ms, p50_ms, p50_ms), None, None, 1, one, 1),
    )
    return Cost(latencies, 1, 1, threads, 1, "test")


class Package:
    """A fake RAPL package in a folder as the kernel shows it."""

    def __init__(self, root, name="intel-rapl:0", range_uj=1_000_000):
        self.zone = root / name
        self.zone.mkdir(parents=True)
        self.range_uj = range_uj
        (self.zone / "name").write_text("package-0\n")
        (self.zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.set(900_000)

    def set(self, uj):
        """Let the counter stand at `uj`, running over as the kernel's does."""
        self.uj = uj % self.range_uj
        (self.zone / "energy_uj").write_text(f"{self.uj}\n")


def test_without_a_meter_it_is_an_estimate_from_the_time():
    """2 threads of 5 W for 8 ms make 0.08 J for 32 predictions."""
    found = estimate_energy(a_cost())
    assert found.energy_j_per_prediction == pytest.approx(0.08 / 32)
    assert found.energy_source.startswith("estimate")


def test_no_meter_means_estimate_and_no_call():
    """Nothing is run for a number that would not be read."""
    found = measure_energy(lambda: pytest.fail("called"), 32, a_cost(), meters=[])
    assert found == estimate_energy(a_cost())


def test_a_package_is_read_and_its_running_over_is_noticed(tmp_path):
    """0.2 J from 0.9 J on a counter that begins again at 1 J."""
    package = Package(tmp_path)
    Package(tmp_path, "intel-rapl:0:0")  # the cores of the package, counted in it already
    meters = find_meters(tmp_path)
    assert [meter.source for meter in meters] == ["RAPL package-0"]
    found = measure_energy(lambda: package.set(package.uj + 200_000), 4, a_cost(), seconds=0, meters=meters)
    assert found.energy_j_per_prediction == pytest.approx(0.05)
    assert found.energy_source == "measured: RAPL package-0"


def test_calls_are_repeated_and_shared_out(monkeypatch):
    """Meters are coarse: many calls, one reading."""
    clock = iter(range(100))
    monkeypatch.setattr("autocut.measure.energy.time.monotonic", lambda: next(clock))
    joules = [0.0]

    def run():
        joules[0] += 3.0

    found = measure_energy(run, 10, a_cost(), seconds=5, meters=[Meter("fake", lambda: joules[0])])
    assert joules[0] > 3
    assert found.energy_j_per_prediction == pytest.approx(0.3)


def test_a_counter_that_may_not_be_read_is_no_meter(tmp_path):
    """Most machines let root alone read it; that is no error."""
    package = Package(tmp_path)
    (package.zone / "energy_uj").unlink()
    assert find_meters(tmp_path) == []
    assert find_meters(tmp_path / "missing") == []
