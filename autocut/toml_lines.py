"""Line numbers in a TOML file, so that a fault can name its line. tomllib keeps no positions."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from autocut.errors import Fault, FaultsError, quoted

Place = tuple[str | int, ...]


class LineMap:
    """Line numbers of the keys of one TOML text.

    It reads only headers and keys, line by line. A key that it cannot find, such as one in an inline table, gets the line of its
    nearest parent.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._rows = text.splitlines()
        self._lines: dict[Place, int] = {}
        self._read()

    def line(self, place: Place, value: object = None) -> int | None:
        """Return the line of the key at `place`; with a `value`, the first line from there on that shows the value."""
        for length in range(len(place), 0, -1):
            if (start := self._lines.get(place[:length])) is not None:
                return start if value is None else self._line_showing(value, start)
        return None

    def where(self, place: Place, value: object = None) -> str:
        """Return the file and, if known, the line."""
        line = self.line(place, value)
        return self.source if line is None else f"{self.source}, line {line}"

    def _line_showing(self, value: object, start: int) -> int:
        spellings = (json.dumps(value), f"'{value}'")
        for number in range(start, len(self._rows) + 1):
            row = self._rows[number - 1]
            if any(spelling in row for spelling in spellings):
                return number
            if number > start and row.lstrip().startswith("["):
                break
        return start

    def _read(self) -> None:
        table: Place = ()
        counts: dict[Place, int] = {}
        for number, row in enumerate(self._rows, start=1):
            stripped = row.strip()
            header = re.fullmatch(r"(\[\[?)(.+?)\]\]?\s*(#.*)?", stripped)
            if header and (path := _key_path(header[2])):
                table = path
                if header[1] == "[[":
                    counts[path] = counts.get(path, -1) + 1
                    self._lines.setdefault(path, number)
                    table = (*path, counts[path])
                self._note(table, number)
            elif "=" in stripped and (path := _key_path(_before_equals(stripped))):
                self._note((*table, *path), number)

    def _note(self, place: Place, number: int) -> None:
        for length in range(1, len(place) + 1):
            self._lines.setdefault(place[:length], number)


class FaultList:
    """Collects the faults of one file, to report them together in the order of its lines."""

    def __init__(self, lines: LineMap) -> None:
        self._lines = lines
        self._faults: list[tuple[int, Fault]] = []

    def add(self, place: Place, message: str, hint: str | None = None, value: object = None) -> None:
        """Add a fault at `place`, or at the line below it that shows `value`."""
        fault = Fault(message, hint, self._lines.where(place, value))
        self._faults.append((self._lines.line(place, value) or 0, fault))

    def __bool__(self) -> bool:
        """Whether there is a fault."""
        return bool(self._faults)

    def raise_any(self, subject: str) -> None:
        """Raise all faults, if there are any.

        Raises:
            FaultsError: It lists every fault so far.
        """
        if self._faults:
            ordered = sorted(self._faults, key=lambda numbered: numbered[0])
            raise FaultsError(f"{subject} {quoted(self._lines.source)}", [fault for _, fault in ordered])


def _before_equals(row: str) -> str:
    match = re.match(r"""((?:"[^"]*"|'[^']*'|[^="'])+)=""", row)
    return match[1] if match else ""


def _key_path(key: str) -> Place:
    """Return the path of a dotted key as TOML reads it, or () if the text is no key."""
    try:
        node: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str | int] = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        path.append(name)
    return tuple(path)
