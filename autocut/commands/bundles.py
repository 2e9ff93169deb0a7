"""`autocut export` and `autocut verify`: take a model away, and check its claims."""

from __future__ import annotations

from pathlib import Path

import click

from autocut.commands.front import STUDY
from autocut.commands.verb import verb
from autocut.console import Console


@verb("export", "Write the model of one trial as a bundle.", "autocut export studies/digits --trial 42 --to out/")
@STUDY
@click.option("--trial", type=click.IntRange(0), required=True, help="Number of the trial, as `autocut front` shows it.")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder that becomes the bundle.")
@click.option("--examples/--no-examples", default=None,
              help="Real test inputs with their targets in the bundle, or synthetic ones.  [default: as the search]")  # fmt: skip
@click.option("--retrain", is_flag=True, help="Train the model again where its weights are gone from the stages.")
@click.pass_obj
def export(console: Console, study: Path, trial: int, to: Path, examples: bool | None, retrain: bool) -> int:
    """Write the model of one trial of STUDY as a bundle, and print the folder of the bundle.

    If the trial has no bundle yet, or one with other examples, it is built from the stored stages.
    """
    from autocut.deploy.export import export_trial

    with console.busy(f"exporting trial {trial}"):
        bundle = export_trial(study, trial, to, examples=examples, retrain=retrain)
    console.data(str(bundle))
    console.info(f"prove it: autocut verify {bundle}")
    return 0


@verb("verify", "Prove a bundle's claims in a fresh process.", "autocut verify out/", "autocut verify out/ --json")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def verify(console: Console, bundle: Path, as_json: bool) -> int:
    """Load BUNDLE in a fresh process and compare it with its manifest: hashes, accuracy, latency, size.

    The exit code is 1 if a claim does not hold.
    """
    from autocut.deploy.verify import verify_bundle
    from autocut.measure.quiet import QuietLock

    lock = QuietLock()  # a search on this machine measures times too: one waits for the other
    with console.busy(f"verifying {bundle}"):
        verification = verify_bundle(bundle, alone=lock.exclusive, working=lock.shared)
    checks = [{"name": check.name, "claim": check.claim, "found": check.found, "ok": check.ok} for check in verification.checks]
    if as_json:
        console.document({"schema_version": 1, "bundle": str(bundle), "ok": verification.ok, "checks": checks})
    else:
        rows = [(check.name, "ok" if check.ok else "FAILED", check.message) for check in verification.checks]
        console.table(["check", "", "what was found"], rows)
    return 0 if verification.ok else 1
