"""The shape of the house: rules that keep every room small enough to read, and every name with one meaning."""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from pathlib import Path

import pytest

import autocut

PACKAGE = Path(autocut.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = {"file": 400, "function": 60}
MOST_PARAMETERS = 8


def named(file):
    """How a message names a file."""
    return file.relative_to(PACKAGE).as_posix()


def functions_of(file):
    """Every function and method of a file, with the lines of its source."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def names_of(file):
    """Names that a file gives at its top to classes and to types."""
    for node in ast.parse(file.read_text()).body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp()) if (
                not name.isupper() and name[0].isupper()
            ):
                yield name


def test_a_file_can_be_read_in_one_go():
    """A file that outgrows this asks for a new room."""
    lengths = {named(file): len(file.read_text().splitlines()) for file in FILES}

    assert {name: length for name, length in lengths.items() if length > MOST_LINES["file"]} == {}


def test_a_function_fits_on_a_screen():
    """Longer ones do more than one thing."""
    lengths = {
        f"{named(file)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for file in FILES
        for function in functions_of(file)
    }

    assert {name: length for name, length in lengths.items() if length > MOST_LINES["function"]} == {}


def test_a_constructor_takes_few_collaborators():
    """An object that needs more of them knows too much."""
    counts = {
        f"{named(file)}, line {function.lineno}": len(function.args.args) + len(function.args.kwonlyargs) - 1
        for file in FILES
        for function in functions_of(file)
        if function.name == "__init__"
    }

    assert {place: count for place, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_a_name_means_one_thing():
    """Two classes or types of one name make a reader open both files to see which one is meant."""
    places = defaultdict(list)
    for file in FILES:
        for name in names_of(file):
            places[name].append(named(file))

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_one_place_places_models_and_data_on_a_gpu():
    """One room decides where a training computes; one looks for a GPU, one waits for a model that answers from one."""
    files = {named(file) for file in FILES if re.search(r"torch\.cuda|\.cuda\(|device=.cuda", file.read_text())}

    assert files == {"stages/device.py", "execution/training_device.py"}


@pytest.mark.parametrize(
    ("source", "names"), [("class Job:\n    pass", ["Job"]), ("Pair = tuple[int, int]\nLIMIT = 1 | 2\nrow = 1 | 2", ["Pair"])]
)
def test_the_check_of_names_sees_classes_and_types_alone(tmp_path, source, names):
    """Constants and values may repeat a name: they say nothing about what a word means."""
    file = tmp_path / "room.py"
    file.write_text(source)

    assert list(names_of(file)) == names


COUNTED = "blocks classes cores dimensions epochs examples files GPUs inputs jobs layers models nodes outputs points processors"
COUNTED += " samples threads trials workers"
IN_KEYS = (" threads, ", " layers in float")
"""Words in the keys of stages, which keep their form: another key would make every stage again."""


def counts_by_hand(source):
    """Lines with an f-string that writes a number before one of the nouns `COUNTED`, always in the plural."""
    noun = re.compile(rf" ({'|'.join(COUNTED.split())})\b")
    for node in ast.walk(ast.parse(source)):
        for value, after in itertools.pairwise(node.values if isinstance(node, ast.JoinedStr) else ()):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            has_decimals = value.format_spec is not None and bool({".", "{"} & set(ast.unparse(value.format_spec).strip("f'")))
            if noun.match(str(after.value)) and not has_decimals and not str(after.value).startswith(IN_KEYS):
                yield value.lineno


def test_a_count_and_its_noun_are_written_by_one_function():
    """By hand, one thing is called things: "1 points"."""
    by_hand = {named(file): list(counts_by_hand(file.read_text())) for file in FILES}

    assert {name: lines for name, lines in by_hand.items() if lines} == {}
