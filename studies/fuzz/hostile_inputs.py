"""What strangers may hand in: sound documents with a few changes, and values that no program expects."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NASTY_TEXTS = (
    "", " ", "-", "--", "0", "-1", "nan", "inf", "1e999", "9" * 400, "true", "none", "..", "../../etc/passwd", "/", "~", "*",
    "a/b", "C:\\x", "%s%n", "{0}", "${HOME}", "$(id)", "'; DROP TABLE trials; --", "\x1b[2J", "\x00", "\r\n", "\u202e", "é" * 300,
    "²", "9" * 5000, "日本", "\U0001f600", "10GB", "8h", "1%", "latency_ms<=5", "structured", "int8_static", "x" * 5000,
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 1e308, -1e308, 5e-324)
_NO_NUMBERS = (float("inf"), float("-inf"), float("nan"))


def texts() -> st.SearchStrategy[str]:
    """Nasty texts, and any text that a file can hold."""
    return st.one_of(st.sampled_from(NASTY_TEXTS), st.text(st.characters(exclude_categories=("Cs",)), max_size=30))


def values() -> st.SearchStrategy[Any]:
    """Values of any type that JSON or TOML has, and some that only one of them has."""
    leaves = st.one_of(texts(), st.sampled_from((*_NUMBERS, *_NO_NUMBERS)), st.booleans(), st.none(), st.integers(), st.floats())
    return st.one_of(leaves, st.lists(leaves, max_size=3), st.dictionaries(texts(), leaves, max_size=3))


@st.composite
def changed(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """A copy of `document` in which a few nodes are replaced, renamed, repeated or gone."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        if not (places := list(_nodes(document))):
            return draw(values())
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "replace", "swap", "remove", "rename", "add"))):
            case "replace":
                holder[key] = draw(values())
            case "swap":
                other, name = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other[name])
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(texts())] = holder.pop(key)
            case "add" if isinstance(holder, list):
                holder.append(draw(values()))
            case _ if isinstance(holder, dict):
                holder[draw(texts())] = draw(values())
    return document


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some bytes flipped, cut, repeated, or replaced by others."""
    changed_content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(changed_content) - 1, 0)))
        length = draw(st.sampled_from((1, 1, 2, 8, 100, 4096)))
        match draw(st.sampled_from(("flip", "write", "cut", "truncate", "repeat"))):
            case "flip" if changed_content:
                changed_content[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del changed_content[start : start + length]
            case "truncate":
                del changed_content[start:]
            case "repeat":
                changed_content[start:start] = changed_content[start : start + length]
            case _:
                part = draw(st.one_of(st.binary(max_size=16), texts().map(str.encode)))
                changed_content[start : start + len(part)] = part
    return bytes(changed_content)


def toml_files(document: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    """A TOML file like `document`, or what is left of one."""
    whole = changed(dict(document)).filter(lambda table: isinstance(table, dict)).map(lambda table: toml_text(table).encode())
    return st.one_of(whole, whole, changed_bytes(toml_text(document).encode()), st.binary(max_size=60))


def json_files(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON file like `document`, or what is left of one."""
    whole = changed(document).map(lambda table: json.dumps(table).encode())
    return st.one_of(whole, whole, changed_bytes(json.dumps(document).encode()), st.binary(max_size=60))


def toml_text(document: Mapping[str, Any]) -> str:
    """Write a TOML document, each top-level table under its header."""
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    lines = [f"{_quoted(str(key))} = {_toml(value)}" for key, value in document.items() if key not in tables]
    for key, table in tables.items():
        lines += [f"[{_quoted(str(key))}]", *(f"{_quoted(str(name))} = {_toml(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def reseal(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a bundle's manifest with the hash that fits it, as a person could who made the bundle."""
    body = {key: value for key, value in document.items() if key != "content_sha256"}
    sealed = {**body, "content_sha256": hashlib.sha256(_manifest_text(body).encode()).hexdigest()}
    (folder / "manifest.json").write_text(_manifest_text(sealed), encoding="utf-8")


def _manifest_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _nodes(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place below `document` as (holder, key)."""
    keys = document.keys() if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in list(keys):
        yield document, key
        yield from _nodes(document[key])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted("null" if value is None else value) if isinstance(value, str | None) else repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
