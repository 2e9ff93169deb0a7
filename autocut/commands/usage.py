"""Turns what click says about a command line into the form of every other error: subject, rule, value, and a hint."""

from __future__ import annotations

import re
from pathlib import Path

import click

from autocut.commands.verb import Verb, subject
from autocut.errors import InputError, nearest_hint, quoted, shortened

_REFUSED = re.compile(r"'?(?P<value>[^']*?)'? is not (?:a valid|one of|in the range) ")
_PATH = re.compile(r"\w+ '(?P<value>.*)' (?P<reason>does not exist|is a file|is a directory)", re.DOTALL)
_EXTRA = re.compile(r"Got unexpected extra arguments? \((?P<value>.*)\)", re.DOTALL)
_SYNONYMS = {"gpu": "cuda"}
"""What people call a choice; the nearest name of "gpu" would be "cpu"."""
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_SHORT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([kM])")
_EXPONENTS = {"k": 3, "M": 6}


def from_click(error: click.ClickException) -> InputError:
    """Return an error of click in autocut's wording."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "autocut"
    see = f"see {path} --help"
    if isinstance(error, click.NoSuchOption):
        options = [name for param in ctx.command.params for name in param.opts] if ctx else []
        return InputError(f"{path} has no flag {quoted(error.option_name)}", nearest_hint(error.option_name, options) or see)
    if isinstance(error, click.MissingParameter) and error.param:
        return InputError(f"{subject(error.param, ctx)} is missing", _example(ctx) or see)
    if isinstance(error, click.BadParameter) and error.param:
        return _bad_value(error.message.rstrip("."), error.param, subject(error.param, ctx)) or InputError(
            f"{subject(error.param, ctx)} is wrong: {shortened(error.message.rstrip('.'))}", see
        )
    if extra := _EXTRA.match(error.format_message()):
        return InputError(f"{path} must get no further word, got {quoted(extra['value'])}", _example(ctx) or see)
    return InputError(shortened(error.format_message().rstrip(".")), see)


def _example(ctx: click.Context | None) -> str | None:
    command = ctx.command if ctx else None
    return f"as in: {command.examples[0]}" if isinstance(command, Verb) and command.examples else None


def _bad_value(message: str, param: click.Parameter, named: str) -> InputError | None:
    """Return the error for a value of a wrong form, None where click says something else."""
    kind = param.type
    if found := _PATH.fullmatch(message):
        wanted = "a folder" if isinstance(kind, click.Path) and not kind.file_okay else "a file"
        got = {"does not exist": "none at ", "is a file": "the file ", "is a directory": "the folder "}[found["reason"]]
        return InputError(
            f"{named} must be {wanted}, got {got}{quoted(found['value'])}",
            f"look at it: ls {shortened(str(Path(found['value']).parent))}",
        )
    found = _REFUSED.match(message)
    if found is None:
        return None
    value = found["value"]
    if isinstance(kind, click.Choice):
        choices = [str(choice) for choice in kind.choices]
        return InputError(
            f"{named} must be one of {', '.join(choices)}, got {quoted(value)}",
            nearest_hint(_SYNONYMS.get(value.lower(), value), choices) or f"write {choices[0]}",
        )
    whole = isinstance(kind, click.types.IntParamType)
    least, most = (kind.min, kind.max) if isinstance(kind, click.IntRange | click.FloatRange) else (None, None)
    rule = f"{'an integer' if whole else 'a number'}{_bounds(param)}"
    hint = _whole_hint(value, least) if whole else _share_hint(value, most)
    return InputError(f"{named} must be {rule}, got {quoted(value)}", hint)


def _bounds(param: click.Parameter) -> str:
    """Return the bounds of a range in words: ``above 0 and at most 1``."""
    kind = param.type
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return ""
    least = None if kind.min is None else f"{'above' if kind.min_open else 'of at least'} {kind.min}"
    most = None if kind.max is None else f"{'below' if kind.max_open else 'at most'} {kind.max}"
    told = " and ".join(bound for bound in (least, most) if bound)
    return f" {told}" if told else ""


def _whole_hint(value: str, least: float | None) -> str:
    """Return what to type for an integer: thousands and millions in full, else the least."""
    if short := _SHORT.fullmatch(value):
        return f"write {float(short[1]) * 10 ** _EXPONENTS[short[2]]:.0f}"
    return f"write {1 if least is None else least:g}"


def _share_hint(value: str, most: float | None) -> str:
    """Return what to type for a number: a percentage as a share, thousands and millions with their power of ten."""
    share = value.removesuffix("%")
    if most == 1 and _DIGITS.fullmatch(share) and 1 < float(share) <= 100:
        return f"write {float(share) / 100:g}"
    if short := _SHORT.fullmatch(value):
        return f"write {short[1]}e{_EXPONENTS[short[2]]}"
    return "write digits alone, such as 0.5"
