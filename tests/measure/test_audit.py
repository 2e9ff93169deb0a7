"""The audit of the machine, on planted files of a kernel."""

import pytest

from autocut.errors import InputError
from autocut.measure.audit import AuditedMachine, audit_machine, require_processors


@pytest.fixture
def plant(tmp_path):
    """Return a function that writes files of the kernel below a root, and gives a machine of four processors that has them."""

    def machine(swapped_share=0.0, gpu_processes=0, **files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text + "\n")
        return AuditedMachine(tmp_path, frozenset(range(4)), swapped_share, gpu_processes)

    return machine


def test_a_calm_machine_has_nothing_to_say(plant):
    """Each processor is a core, at full speed, without a quota."""
    cpus = {f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": str(number) for number in range(4)}
    governors = {f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor": "performance" for number in range(4)}
    found = audit_machine(0.1, plant(**cpus, **governors, **{"sys/fs/cgroup/cpu.max": "max 100000"}))
    assert (found.processors, found.warnings) == (4, ())


def test_a_machine_that_tells_nothing_is_no_fault(plant):
    """A system without these files is not accused of anything."""
    assert audit_machine(None, plant()).warnings == ()


@pytest.mark.parametrize(
    ("load", "changes", "told"),
    [
        (1.2, {}, "other programs use 1.2 of 4 processors"),
        (None, {"swapped_share": 0.2}, "20% of the memory was moved to disk"),
        (None, {"gpu_processes": 2}, "is used by 2 other processes"),
        (None, {"gpu_processes": 1}, "is used by 1 other process"),
        (None, {"sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "powersave"}, "frequency governor is powersave"),
        (None, {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}" for n in range(4)},
         "4 processors are 2 cores"),
    ],
)  # fmt: skip
def test_each_thing_that_spoils_timings_is_named(plant, load, changes, told):
    """With its value, in one sentence."""
    (warning,) = audit_machine(load, plant(**changes)).warnings
    assert told in warning


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/cpu.max": "150000 100000"},
        {"proc/self/cgroup": "0::/kube/pod", "sys/fs/cgroup/kube/cpu.max": "150000 100000",
         "sys/fs/cgroup/kube/pod/cpu.max": "max 100000"},
        {"proc/self/cgroup": "3:cpu,cpuacct:/docker/a", "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "150000",
         "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
    ],
)  # fmt: skip
def test_a_container_counts_whole_processors_of_its_quota(plant, files):
    """Of either version of the control groups, and of every group above its own: a thread beyond the quota stops all of them."""
    found = audit_machine(None, plant(**files))
    assert found.processors == 1
    assert "may use 1.5 of 4 processors" in found.warnings[0]


def test_no_quota_of_version_1_is_minus_one(plant):
    """It is no number of processors."""
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert audit_machine(None, plant(**files)).processors == 4


@pytest.mark.parametrize(("threads", "workers"), [(1, 4), (2, 2), (4, 1)])
def test_threads_that_fit_are_fine(threads, workers):
    """One for each processor."""
    require_processors(threads, workers, 4)


@pytest.mark.parametrize(("threads", "workers", "hint"), [(2, 3, "--workers 2"), (5, 1, "--threads 4 --workers 1")])
def test_threads_beyond_the_processors_are_refused_with_what_fits(threads, workers, hint):
    """The hint can be typed as it is."""
    with pytest.raises(InputError) as refused:
        require_processors(threads, workers, 4)
    assert refused.value.hint == f"write {hint}"
