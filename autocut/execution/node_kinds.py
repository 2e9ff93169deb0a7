"""The kinds of node of a cluster: which one measures, and what a node must have to run jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from autocut.counting import format_count
from autocut.errors import Fault, InputError, quoted
from autocut.execution.node_host import NodeFindings


def choose_kind(kinds: Mapping[str, str], wanted: str | None, known: str | None) -> str:
    """Return the kind of machine that measures.

    Args:
        kinds: By node, its kind (`machine_fingerprint`).
        wanted: What the user has typed: a part of the kind's name. None: the most common one.
        known: The kind of the study's numbers so far. None: it has none.

    Raises:
        InputError: no kind, or more than one, has that name, or the study is of another kind.
    """
    counts = Counter(kinds.values())
    listed = "; ".join(f"{kind} ({count} of {format_count(len(kinds), 'node')})" for kind, count in sorted(counts.items()))
    if wanted is not None:
        found = sorted(kind for kind in counts if wanted.lower() in kind.lower())
        if len(found) != 1:
            part_of = f"which is a part of {format_count(len(found), 'name')}"
            message = f"--measure-on must name one kind of node, got {quoted(wanted)}, {part_of}"
            raise InputError(message, f"there are: {listed}")
        if known is not None and found[0] != known:
            message = f"the numbers of this study come from {known}, got --measure-on {quoted(wanted)}"
            raise InputError(message, "begin another study: --out FOLDER")
        return found[0]
    if known is not None:
        if known not in counts:
            raise InputError(f"the numbers of this study come from {known}, and no node is of this kind", f"there are: {listed}")
        return known
    return min(counts, key=lambda kind: (-counts[kind], kind))


def node_faults(name: str, found: NodeFindings, here: NodeFindings, shared: str) -> Iterator[Fault]:
    """Yield what keeps a node from running jobs, compared with the driver's own machine."""
    if found.shared:
        yield Fault(
            f"node {name} must see the folder {shared}, but {found.shared}", "name a folder that all nodes share: --stages FOLDER"
        )
    if found.task_error:
        yield Fault(
            f"node {name} must be able to load the task, but cannot: {found.task_error}",
            "the task's folder travels there, but for what .gitignore names; other data must be at the same path on every node",
        )
    elif found.fingerprint != here.fingerprint:
        yield Fault(
            f"node {name} must find the same task as this machine, but its model or data differ there",
            "does the model come from a seed, and do the data lie at the same path on every node?",
        )
    different = [
        f"{library} {found.libraries.get(library, 'missing')} (here {here.libraries.get(library, 'missing')})"
        for library in sorted({*found.libraries, *here.libraries})
        if found.libraries.get(library) != here.libraries.get(library)
    ]
    if different:
        yield Fault(f"node {name} must have the libraries of this machine, got {', '.join(different)}", "install the same versions")
    if found.compiler and not here.compiler:
        yield Fault(f"node {name} must compile as this machine does: {found.compiler}")
