"""`autocut export` and `autocut verify`: take a model away, and check its claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocut.commands.front import STUDY
from autocut.commands.verb import JSON, verb
from autocut.console import Console
from autocut.counting import format_count
from autocut.errors import ExitCode

if TYPE_CHECKING:
    from autocut.deploy.claims import Check


@verb("export", "Write the model of one trial as a bundle.", "autocut export studies/digits --trial 42 --to out/",
      "autocut export studies/digits --trial 42 --to out/ --json")  # fmt: skip
@STUDY
@click.option("--trial", type=click.IntRange(0), required=True, help="Number of the trial, as `autocut front` shows it.")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder that becomes the bundle.")
@click.option("--examples/--no-examples", default=None,
              help="Real test inputs with their targets in the bundle, or synthetic ones.  [default: as the search]")  # fmt: skip
@click.option("--retrain", is_flag=True, help="Train the model again where its weights are gone from the stages.")
@click.option(
    "--sign-key", type=click.Path(path_type=Path), metavar="FILE", help="Private ed25519 key (PEM) that signs the bundle."
)
@JSON
@click.pass_obj
def export(
    console: Console, study: Path, trial: int, to: Path, examples: bool | None, retrain: bool, sign_key: Path | None, as_json: bool
) -> int:
    """Write the model of one trial of STUDY as a bundle, and print the folder of the bundle.

    If the trial has no bundle yet, or one with other examples, it is built from the stored stages.
    """
    from autocut.deploy.export import export_trial
    from autocut.deploy.signing import read_private_key, sign

    key = None if sign_key is None else read_private_key(sign_key)
    with console.busy(f"exporting trial {trial}"):
        bundle = export_trial(study, trial, to, examples=examples, retrain=retrain)
        if key is not None:
            sign(bundle, key)
    if as_json:
        from autocut.schemas.bundles import ExportDocument

        console.document(ExportDocument(study=str(study), trial=trial, bundle=str(bundle)).plain())
        return ExitCode.DONE
    console.data(str(bundle))
    console.info(f"prove it: autocut verify {bundle}")
    return ExitCode.DONE


@verb("verify", "Prove a bundle's claims in a fresh process.", "autocut verify out/", "autocut verify out/ --json")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Public ed25519 key (PEM) of the required signer.")
@JSON
@click.pass_obj
def verify(console: Console, bundle: Path, key: Path | None, as_json: bool) -> int:
    """Load BUNDLE in a fresh process and compare it with its manifest: hashes, accuracy, latency, size.

    The exit code is 1 if a claim does not hold.
    """
    from autocut.deploy.verify import verify_bundle
    from autocut.measure.quiet import QuietLock

    if key is not None:
        from autocut.deploy.signing import read_public_key, require_signature

        require_signature(bundle, read_public_key(key))
    lock = QuietLock()  # a search on this machine measures times too: one waits for the other
    with console.busy(f"verifying {bundle}"):
        verification = verify_bundle(bundle, alone=lock.exclusive, working=lock.shared)
    if as_json:
        from autocut.schemas.bundles import CheckedClaim, VerifyDocument

        names = CheckedClaim.model_fields
        checks = tuple(CheckedClaim(**{name: getattr(check, name) for name in names}) for check in verification.checks)
        console.document(VerifyDocument(bundle=str(bundle), ok=verification.ok, checks=checks).plain())
    else:
        rows = [(check.name, "ok" if check.ok else "FAILED", check.message) for check in verification.checks]
        console.table(["check", "", "what was found"], rows)
        console.info(_verdict(verification.failed))
    return ExitCode.DONE if verification.ok else ExitCode.NO_RESULT


def _verdict(failed: Sequence[Check]) -> str:
    if not failed:
        return "the bundle keeps its claims"
    names = ", ".join(check.name for check in failed)
    return f"the bundle breaks {format_count(len(failed), 'claim')} ({names}): do not deploy it, export it again"
