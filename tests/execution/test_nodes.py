"""The nodes of a cluster: what keeps one from running jobs, which kind measures, and where a job goes."""

import time

import pytest

from autocut.errors import FaultsError, InputError
from autocut.execution import nodes as nodes_module
from autocut.execution.node_host import NodeFindings, NodePlace
from autocut.execution.node_kinds import choose_kind, node_faults
from autocut.execution.nodes import Nodes, NodesWanted, node_needs

FAST, SLOW = "AMD EPYC 9R14, 8 cores (1a2b3c4d)", "Intel Xeon 8488C, 4 cores (5e6f7a8b)"
HERE = NodeFindings(FAST, "task", libraries={"torch": "2.13.0", "autocut": "0.1.0"})


@pytest.mark.parametrize(
    ("kinds", "wanted", "known", "kind"),
    [
        ([FAST, SLOW, SLOW], None, None, SLOW),
        ([FAST, SLOW], None, None, FAST),
        ([FAST, SLOW, SLOW], "epyc", None, FAST),
        ([FAST, SLOW, SLOW], None, FAST, FAST),
        ([FAST, SLOW, SLOW], "5e6f", SLOW, SLOW),
    ],
)
def test_one_kind_of_node_measures(kinds, wanted, known, kind):
    """The most common one, unless the user names one, or the study has numbers of one."""
    assert choose_kind({str(number): one for number, one in enumerate(kinds)}, wanted, known) == kind


@pytest.mark.parametrize(
    ("wanted", "known", "words"),
    [
        ("cores", None, "a part of 2 names"),
        ("graviton", None, "a part of 0 names"),
        ("intel", FAST, FAST),
        (None, "M1", "no node is"),
    ],
)
def test_a_kind_that_cannot_measure_is_refused(wanted, known, words):
    """All kinds that there are, are listed, or the way out."""
    with pytest.raises(InputError) as refused:
        choose_kind({"a": FAST, "b": SLOW}, wanted, known)

    assert words in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (HERE, []),
        (NodeFindings(SLOW, "task", libraries=HERE.libraries), []),
        (NodeFindings(FAST, "task", shared="there is no such folder", libraries=HERE.libraries), ["must see the folder /shared"]),
        (NodeFindings(FAST, "", "FileNotFoundError: data.npz", libraries=HERE.libraries), ["data.npz"]),
        (NodeFindings(FAST, "other", libraries=HERE.libraries), ["model or data differ"]),
        (NodeFindings(FAST, "task", compiler="no C++ compiler", libraries=HERE.libraries), ["no C++ compiler"]),
        (
            NodeFindings(FAST, "task", libraries={"torch": "2.12.0", "onnx": "1.19"}),
            ["autocut missing (here 0.1.0), onnx 1.19 (here missing), torch 2.12.0 (here 2.13.0)"],
        ),
        (
            NodeFindings(FAST, "", "no data", "another folder is there", "no compiler"),
            ["folder", "no data", "libraries", "compiler"],
        ),
    ],
)
def test_what_a_node_lacks_is_told_by_name(found, words):
    """All of it at once."""
    faults = list(node_faults("worker-3", found, HERE, "/shared"))

    assert len(faults) == len(words)
    assert all(word in fault.message and "worker-3" in fault.message for word, fault in zip(words, faults, strict=True))


class Cluster:
    """Nodes with hosts that answer when the test says so, in place of Ray's."""

    def __init__(self):
        self.findings = {}
        self.alive = {}
        self.ended = []
        self.ahead_s = {}
        self.holds = []
        self.timing = set()
        self.free = {}

    def add(self, node, findings=HERE, slots=2):
        """Have a node join; `findings` is what its host finds, or the error with which it ends."""
        self.findings[node] = findings
        self.alive[node] = {"NodeID": node, "Alive": True, "NodeManagerHostname": node, "Resources": {"CPU": slots}}

    def swap(self, hold, other):
        """Hand a hold over."""
        self.holds.remove(hold)
        self.holds.append(other)

    def nodes(self):
        """See `ray.nodes`."""
        return list(self.alive.values())

    def ask(self, answer):
        """See `ray.get`."""
        if isinstance(answer, Exception):
            raise answer
        return answer


class Host:
    """The actor of a node."""

    def __init__(self, cluster, node):
        self.cluster, self.node = cluster, node
        self.place = Method(lambda: NodePlace(node, f"/{node}/fork.sock", f"/{node}", None))
        self.look = Method(lambda needs: cluster.findings[node])
        self.hold = Method(lambda name: node not in cluster.timing and not cluster.holds.append((node, name)))
        self.hand_over = Method(lambda name, other: cluster.swap((node, name), (node, other)))
        self.release = Method(lambda name: cluster.holds.remove((node, name)))
        self.now = Method(lambda: time.time() + cluster.ahead_s.get(node, 0.0))


class Method:
    """A method of an actor, whose call is its answer."""

    def __init__(self, call):
        self.remote = call


@pytest.fixture
def cluster(monkeypatch):
    """A cluster without Ray."""
    import ray

    made = Cluster()
    monkeypatch.setattr(nodes_module, "_host", lambda _ray, node, *arguments: Host(made, node))
    monkeypatch.setattr(nodes_module, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(nodes_module, "_free_processors", lambda node, all_of_them: made.free.get(node, all_of_them))
    monkeypatch.setattr(nodes_module, "_is_done", lambda looking: True)
    monkeypatch.setattr(ray, "nodes", made.nodes)
    monkeypatch.setattr(ray, "wait", lambda waiting, **options: (waiting, []))
    monkeypatch.setattr(ray, "get", lambda answer, timeout=None: made.ask(answer))
    monkeypatch.setattr(ray, "kill", lambda host: made.ended.append(host.node))
    return made


def opened(tmp_path, **wanted):
    """Nodes that have been looked at, and the lines that were told."""
    nodes = Nodes(None, threads=1)
    nodes.join()
    return nodes, nodes.open(NodesWanted(node_needs("", tmp_path), HERE, **wanted))


def test_jobs_spread_over_the_nodes(cluster, tmp_path):
    """Each goes where most is free; a node takes no more than it has processors for."""
    cluster.add("head", slots=0)
    cluster.add("a")
    cluster.add("b", slots=1)
    nodes, told = opened(tmp_path)
    places = [nodes.take(job).node for job in ("1", "2", "3") if nodes.hold()]

    assert told == [f"nodes: 2 of 2 run jobs, 3 at a time: {FAST}"]
    assert sorted(places) == ["a", "a", "b"]
    assert places[0] == "a"
    assert not nodes.has_room
    nodes.give_back("2")
    assert nodes.has_room


def test_a_node_is_held_until_its_job_is_up_and_one_that_times_gets_none(cluster, tmp_path):
    """Nothing that starts may disturb what is timed, and the other nodes go on."""
    cluster.add("a")
    cluster.add("b", slots=1)
    nodes, _ = opened(tmp_path)
    cluster.timing = {"a"}
    assert nodes.hold()
    assert cluster.holds == [("b", "the next job")]
    nodes.let_go()
    assert cluster.holds == []

    assert nodes.hold()
    assert nodes.take("job 1").node == "b"
    assert cluster.holds == [("b", "job 1")]
    assert not nodes.hold()
    nodes.release("job 1")
    nodes.release("job 1")
    assert cluster.holds == []


def test_nodes_of_another_kind_only_train(cluster, tmp_path):
    """Times of two kinds must not be mixed. A training needs no compiler."""
    cluster.add("a")
    cluster.add("b", NodeFindings(SLOW, "task", compiler="no C++ compiler", libraries=HERE.libraries))
    nodes, told = opened(tmp_path, measure_on="epyc")

    assert told == [f"nodes: 1 of 2 run jobs, 2 at a time: {FAST}", f"node b only trains, 2 at a time: {SLOW}"]
    assert nodes.slots == 4
    assert nodes.training_kinds == {SLOW}
    for job in ("1", "2"):
        assert nodes.hold()
        assert nodes.take(job).node == "a"
        assert nodes.take_to_train(f"half {job}").node == "b"
    assert not nodes.has_room
    assert not nodes.hold()
    assert not nodes.has_room_to_train
    nodes.give_back("half 1")
    assert nodes.has_room_to_train
    assert not nodes.has_room


@pytest.mark.parametrize(
    ("findings", "compares", "reason"),
    [
        (NodeFindings(SLOW, "another task", libraries=HERE.libraries), False, "must find the same task"),
        (NodeFindings(SLOW, "task", libraries={"torch": "2.12"}), False, "must have the libraries"),
        (NodeFindings(SLOW, "task", libraries=HERE.libraries), True, "compares what trainings cost"),
    ],
)
def test_nodes_of_another_kind_that_cannot_train_are_left_out_and_told(cluster, tmp_path, findings, compares, reason):
    """The search goes on without them."""
    cluster.add("a")
    cluster.add("b", findings)
    nodes, told = opened(tmp_path, measure_on="epyc", compares_training=compares)

    assert nodes.slots == 2
    assert "node b is of another kind" in told[1]
    assert reason in told[1]
    assert cluster.ended == ["b"]
    assert not nodes.training_kinds


def test_faults_of_all_nodes_are_told_at_once(cluster, tmp_path):
    """Nothing runs before they are mended."""
    cluster.add("a", NodeFindings(FAST, "", "no data there", libraries=HERE.libraries))
    cluster.add("b", ModuleNotFoundError("No module named 'autocut'"))
    with pytest.raises(FaultsError) as refused:
        opened(tmp_path)

    assert sorted(fault.message.partition(" must")[0] for fault in refused.value.faults) == ["node a", "node b"]


@pytest.mark.parametrize(("ahead_s", "words"), [(60.0, "is 60 s ahead"), (-60.0, "is 60 s behind")])
def test_a_node_with_another_time_of_day_is_told(cluster, tmp_path, ahead_s, words):
    """Its jobs would end too early, or too late."""
    cluster.add("a")
    cluster.add("b")
    cluster.ahead_s["b"] = ahead_s
    with pytest.raises(FaultsError) as refused:
        opened(tmp_path)

    assert [words in fault.message for fault in refused.value.faults] == [True]


def test_a_cluster_without_a_processor_for_a_job_is_refused(cluster, tmp_path):
    """A head alone runs none."""
    cluster.add("head", slots=0)
    with pytest.raises(InputError, match="1 processor for a job"):
        opened(tmp_path)


def test_a_lost_node_takes_its_jobs_with_it_and_a_new_one_is_used(cluster, tmp_path):
    """The executor gives them to others."""
    cluster.add("a")
    cluster.add("b")
    nodes, _ = opened(tmp_path)
    assert nodes.hold()
    nodes.take("first")
    assert nodes.hold()
    lost_node = nodes.take("second").node
    del cluster.alive[lost_node]
    told, lost = nodes.look_after()

    assert lost == ["second"]
    assert told == [f"node {lost_node} is lost with 1 job, to run elsewhere"]
    assert nodes.slots == 2

    cluster.add("c")
    cluster.add("d", NodeFindings(FAST, "other", libraries=HERE.libraries))
    nodes.look_after()
    told, lost = nodes.look_after()
    assert nodes.slots == 4
    assert not lost
    assert cluster.ended == ["d"]


def test_what_nodes_are_looked_at_with_is_removed(cluster, tmp_path):
    """The mark of this search, and that of one that was killed."""
    (tmp_path / ".seen-by-nodes-old").touch()
    cluster.add("a")
    nodes, _ = opened(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    nodes.close()

    assert not list(tmp_path.iterdir())


def test_what_other_programs_of_the_cluster_have_reserved_is_left_to_them(cluster, tmp_path):
    """A job would wait for a processor there, and hold the node meanwhile."""
    cluster.add("a", slots=4)
    cluster.add("b")
    cluster.free = {"a": 1, "b": 0}
    nodes, told = opened(tmp_path)

    assert nodes.slots == 1
    assert told[0].startswith("nodes: 1 of 2 run jobs, 1 at a time")
    assert "node b has no free processor" in told[1]
    cluster.free = {"a": 0, "b": 0}
    with pytest.raises(InputError, match="must have a processor for a job, but has none") as refused:
        opened(tmp_path)
    assert "--workers" in refused.value.hint


def test_a_job_that_does_not_start_holds_its_node_no_longer(cluster, tmp_path, monkeypatch):
    """What it waits for, a processor, may be in the hands of a job that waits to time there."""
    cluster.add("a")
    nodes, _ = opened(tmp_path)
    assert nodes.hold()
    nodes.take("job 1")
    assert nodes.look_after() == ([], [])
    monkeypatch.setattr(nodes_module, "_START_S", -1.0)
    told, lost = nodes.look_after()

    assert "job 1 waits for a processor of node a" in told[0]
    assert not lost
    assert cluster.holds == []
    assert nodes.look_after() == ([], [])


def test_a_second_search_does_not_take_away_what_nodes_are_looked_at_with(cluster, tmp_path):
    """It cannot tell the mark of a search that runs from that of a dead one, so the mark is written for every look."""
    cluster.add("a")
    first, _ = opened(tmp_path)
    opened(tmp_path)
    marker = tmp_path / first._wanted.needs.marker
    assert not marker.exists()
    cluster.add("b")
    first.look_after()

    assert marker.read_text() == first._wanted.needs.word
