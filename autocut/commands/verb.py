"""The base of every verb: quantities with units, `autocut.toml`, `AUTOCUT_*`, and runnable examples in its help."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from autocut.budget import parse_duration, parse_percent, parse_size
from autocut.config import CONFIG_FILE, read_config_file
from autocut.console import Console
from autocut.errors import InputError, nearest_hint

PREFIX = "AUTOCUT"
_CONFIG_FLAG = "config"


class Quantity(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A number with its unit, such as 8h, 10GB or 1%. The parser's error names the origin of the value."""

    def __init__(self, name: str, parse: Callable[[str, str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a string. A number comes from a default and stays."""
        return self._parse(value, subject(param, ctx)) if isinstance(value, str) else value


class FiniteNumber(click.FloatRange):
    """A number of a range. "nan" and "inf" are none: they would pass every comparison, or keep every limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not in the range of finite numbers.", param, ctx)
        return number


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    """Tell the console, so that an error is a document too, even if a variable or a file asked for it."""
    console = ctx.find_object(Console)
    if console is not None and value:
        console.is_json = True
    return value


JSON = click.option("--json", "as_json", is_flag=True, callback=_remember_json, help="Print one JSON document: see autocut schema.")
"""The flag of every verb. `autocut.schemas` has the documents."""

LIMIT_NAMES = (
    "Names: accuracy, usd_per_million (or cost), latency_ms (or latency), size_bytes (or size), compressed_size_bytes, "
    "train_usd (or training), speedup."
)
"""The values that a limit may be on, and their aliases (`autocut.score`), for help that imports nothing."""

DURATION = Quantity("duration", parse_duration)
SIZE = Quantity("size", parse_size)
PERCENT = Quantity("percent", parse_percent)


class Verb(click.Command):
    """One verb: a command that reads `autocut.toml` and its variables. Its help ends with runnable examples."""

    def __init__(self, name: str | None, *, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(name, **settings)
        self.examples = tuple(examples)
        self.epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in self.examples)
        self.params.append(
            click.Option(
                [f"--{_CONFIG_FLAG}", "config_file"],
                type=click.Path(path_type=Path),
                help=f"Configuration file.  [default: {CONFIG_FILE} here, if there is one]",
                is_eager=True,
                expose_value=False,
                callback=_read_configuration,
            )
        )
        for option in self.options:
            # click would take the Python name for the variable's, but the flag may have another name.
            option.envvar = option.envvar or f"{PREFIX}_{name}_{flag(option)}".upper().replace("-", "_")

    @property
    def options(self) -> list[click.Option]:
        """The flags, without the positional arguments."""
        return [param for param in self.params if isinstance(param, click.Option)]

    def keys(self) -> dict[str, str]:
        """Return the keys of the verb's table in a configuration file, with the parameters that they set."""
        named = {flag(param): str(param.name) for param in self.params}
        return {key: name for key, name in named.items() if key != _CONFIG_FLAG}


def verb(name: str, short_help: str, *examples: str) -> Callable[[Callable[..., Any]], Verb]:
    """Make the decorated function the verb `name`; its docstring is the long help."""
    return click.command(name, cls=Verb, short_help=short_help, examples=examples)


def flag(param: click.Parameter) -> str:
    """Return the name of a parameter as a person types it, without leading dashes: ``price-per-hour``."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len).lstrip("-")
    return str(param.name)


def subject(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Return the name of a parameter for an error: its flag, its variable or its key in the configuration file."""
    if param is None:
        return "value"
    place = source(param, ctx)
    if place.startswith(PREFIX):
        return place
    if place.endswith(".toml"):
        return f"{flag(param)} in {place}"
    return f"--{flag(param)}" if isinstance(param, click.Option) else str(param.name).upper()


def source(param: click.Parameter, ctx: click.Context | None) -> str:
    """Return the origin of a parameter's value: ``flag``, the variable, the configuration file, or ``default``."""
    found = ctx.get_parameter_source(str(param.name)) if ctx else None
    if ctx and found is ParameterSource.ENVIRONMENT:
        return str(param.envvar)
    if ctx and found is ParameterSource.DEFAULT_MAP:
        return str(ctx.meta.get("autocut.config_file", CONFIG_FILE))
    return "flag" if found is ParameterSource.COMMANDLINE else "default"


def _read_configuration(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    """Fill click's `default_map` from the file, before the other parameters get their values."""
    command = ctx.command
    root = ctx.find_root().command
    if isinstance(command, Verb):
        _check_variables(command)
    path = value or Path(CONFIG_FILE)
    if value is None and not path.is_file():
        return
    verbs = root.commands if isinstance(root, click.Group) else {}
    options = {name: known.keys() for name, known in verbs.items() if isinstance(known, Verb)}
    params = [param for known in verbs.values() for param in known.params]
    flags = [param for param in params if isinstance(param, click.Option)]
    repeatable = {str(option.name) for option in flags if option.multiple}
    switches = {str(option.name) for option in flags if option.is_flag}
    ctx.meta["autocut.config_file"] = str(path)
    ctx.default_map = read_config_file(path, options, repeatable, switches).get(str(command.name), {})


def _check_variables(command: Verb) -> None:
    """Refuse a mistyped variable: to ignore it would be a silent fallback."""
    known = {str(option.envvar) for option in command.options}
    for variable in os.environ:
        if variable.startswith(f"{PREFIX}_{command.name}_".upper()) and variable not in known:
            message = f"environment variable {variable} belongs to no flag of autocut {command.name}"
            raise InputError(message, nearest_hint(variable, known) or f"see autocut {command.name} --help")
