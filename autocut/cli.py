"""The command line: its verbs, its error messages and its exit codes.

Data goes to stdout, everything else to stderr. `errors.ExitCode` has the exit codes. With `--json`, stdout has exactly one document
(`autocut.schemas`): that of the verb, or that of the error. The error is told on stderr too, for people.
"""

from __future__ import annotations

import errno
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

import click

from autocut import __version__
from autocut.commands.again import compare, remeasure
from autocut.commands.bundles import export, verify
from autocut.commands.explain import explain
from autocut.commands.front import front, select
from autocut.commands.insight import check, dashboard, ledger, methods, schema
from autocut.commands.report import report
from autocut.commands.search import search
from autocut.commands.usage import from_click
from autocut.commands.verb import PREFIX
from autocut.console import Console
from autocut.errors import AutocutError, ExitCode, InputError, nearest_hint, quoted

EXAMPLES = ("autocut search --budget 5m --space quick", "autocut search task.py --budget 8h", "autocut front studies/digits")
_MACHINE_ERRORS = {
    errno.ENOSPC: "free some disk space, or choose another folder with --out",
    errno.EDQUOT: "free some disk space, or choose another folder with --out",
    errno.EROFS: "choose a folder that can be written, with --out",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another folder",
    errno.EISDIR: "a folder stands where a file is needed: choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files: ulimit -n 4096",
}


class _Verbs(click.Group):
    """The group of verbs. The error for an unknown verb names the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that the user typed."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = nearest_hint(args[0], self.commands) or "see autocut --help"
            raise InputError(f"verb must be one of {', '.join(self.commands)}, got {quoted(args[0])}", hint)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order in which people use them."""
        return list(self.commands)


@click.group(
    cls=_Verbs,
    context_settings={"auto_envvar_prefix": PREFIX, "help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n" + "\n".join(f"  {example}" for example in EXAMPLES),
)
@click.version_option(__version__, prog_name="autocut")
def cli() -> None:
    """Cut what a PyTorch model costs: pruning, quantization, compilation, curriculum and distillation, searched together.

    Flags can be set in autocut.toml ([search] budget = "8h") or as AUTOCUT_SEARCH_BUDGET=8h; a flag on the command line wins.
    """


_VERBS = (
    search, check, methods, front, select, explain, export, verify, remeasure, compare, ledger, report, dashboard, schema,
)  # fmt: skip
for _verb in _VERBS:
    cli.add_command(_verb)


def main(arguments: Sequence[str] | None = None, *, tells_errors: bool = True) -> int:
    """Run one command line and return its exit code. Only this function reports errors.

    Args:
        arguments: Words after ``autocut``. Default: the arguments of this process.
        tells_errors: Whether stderr gets errors too where stdout gets a document of them.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(tells_errors=tells_errors)
    console.is_json = "--json" in words  # until the verb's flag is read: an unknown flag is told before that
    termination = Termination()
    try:
        with termination:
            return _run(words, console)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(words, console, is_terminated=termination.is_received)


def _run(words: Sequence[str], console: Console) -> int:
    try:
        code = cli.main(words, prog_name="autocut", standalone_mode=False, obj=console)
        return int(code or 0)
    except click.Abort:
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        console.info(error.ctx.get_help() if error.ctx else error.format_message())
        return InputError.exit_code
    except click.ClickException as error:
        return _report(from_click(error), console)
    except AutocutError as error:
        return _report(error, console)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            place = f" {quoted(error.filename)}" if error.filename else ""
            return _report(InputError(f"file{place} could not be used: {error.strerror}", _MACHINE_ERRORS[error.errno]), console)
        console.bug(error)
        _document_failure(console, "Bug", ExitCode.BUG, f"this is a bug in autocut: {type(error).__name__}: {error}")
        return ExitCode.BUG


def _report(error: AutocutError, console: Console) -> int:
    console.error(error)
    if console.is_json:
        from autocut.schemas.document import error_document

        console.document(error_document(error).plain())
    return error.exit_code


def _document_failure(console: Console, kind: str, code: ExitCode, message: str, hint: str | None = None) -> None:
    if console.is_json:
        from autocut.schemas.document import failure_document

        console.document(failure_document(kind, code, message, hint).plain())


class Termination:
    """While the block runs, SIGTERM ends it like Ctrl-C: what is finished is kept, and no process is left behind.

    A second SIGTERM is ignored, because the first one is being obeyed. Outside of the main thread this does nothing.
    """

    def __init__(self) -> None:
        self.is_received = False
        self._before: Any = None

    def __enter__(self) -> None:
        """Take over the signal."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._end)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.is_received:
            self.is_received = True
            raise KeyboardInterrupt


def _interrupted(words: Sequence[str], console: Console, *, is_terminated: bool) -> int:
    how = "terminated" if is_terminated else "interrupted"
    code = ExitCode.TERMINATED if is_terminated else ExitCode.INTERRUPTED
    if words[:1] == ["search"]:
        again = shlex.join(["autocut", *_without_passwords(words)])
        console.info(f"{how}; finished work is kept. Resume with:\n  {again}")
        _document_failure(console, "Interrupted", code, f"{how}; finished work is kept", again)
    else:
        console.info(how)
        if words[:1] != ["dashboard"]:  # a dashboard ends like this, and has printed its document
            _document_failure(console, "Interrupted", code, how)
    return code


def _without_passwords(words: Sequence[str]) -> Sequence[str]:
    if not any("://" in word for word in words):
        return words  # the rest takes seconds to import, and somebody waits for the end
    from autocut.study import without_passwords

    return without_passwords(words)
