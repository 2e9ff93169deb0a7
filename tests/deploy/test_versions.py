"""What a user reads where a bundle meets other versions of the libraries that made it."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from autocut.deploy import versions
from autocut.deploy.bundle import load
from autocut.deploy.manifest import hash_files, read_manifest
from autocut.deploy.verify import verify_bundle
from autocut.errors import BundleError, MissingDependencyError
from autocut.stages.libraries import runtime_versions

TORCH = importlib.metadata.version("torch")


def made_with(bundle, claim, **libraries):
    """Have the bundle say that it was made with these libraries."""
    environment = read_manifest(bundle).environment
    claim.rewrite(bundle, environment=environment.model_copy(update={"libraries": libraries}))


def spoil(bundle, claim):
    """Give the bundle a model that no runtime reads, with hashes that fit it."""
    (bundle / "model" / "graph.pt2").write_bytes(b"no model at all")
    claim.rewrite(bundle, files=hash_files(bundle))


def test_a_model_that_another_version_refuses_names_both_versions(bundle, claim):
    """The hint brings the version that made it, without the local part that no index knows."""
    made_with(bundle, claim, torch="1.0+cpu", numpy=importlib.metadata.version("numpy"), gone="2.0")
    spoil(bundle, claim)

    with pytest.raises(BundleError) as caught:
        load(bundle)

    assert caught.value.message.startswith("graph.pt2 must be ")
    assert caught.value.message.endswith(f"(made with other versions: torch 1.0+cpu, here {TORCH})")
    assert caught.value.hint == "pip install torch==1.0 or export the model again with autocut"


def test_a_damaged_model_of_these_versions_blames_none(bundle, claim):
    """Then the file is the reason."""
    made_with(bundle, claim, **runtime_versions())
    spoil(bundle, claim)

    with pytest.raises(BundleError) as caught:
        load(bundle)

    assert "made with" not in caught.value.message
    assert caught.value.hint == "export the model again with autocut"


def test_a_runtime_that_is_not_installed_is_named_with_the_version_that_made_the_bundle(new_bundle, claim, monkeypatch):
    """It is no bug of autocut. Other runtimes are not asked for."""
    bundle = new_bundle(mode="onnxruntime")
    made_with(bundle, claim, **{"onnxruntime-gpu": "1.30.0", "openvino": "2026.1.0", "torch": TORCH})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(versions, "_version", {"torch": TORCH}.get)

    with pytest.raises(MissingDependencyError) as caught:
        load(bundle)

    assert caught.value.message == "a bundle of 'onnxruntime' needs onnxruntime, which is not installed"
    assert caught.value.hint == "pip install onnxruntime-gpu==1.30.0"


def test_a_bundle_that_runs_with_other_versions_verifies_and_says_so(bundle, claim):
    """What is reported is no failure; where another check fails, it may be the reason."""
    made_with(bundle, claim, torch="1.0", gone="2.0")

    reported = [
        check for check in verify_bundle(bundle, in_fresh_process=False, latency_tolerance=0.9).checks if check.name == "versions"
    ]

    assert [check.ok for check in reported] == [True]
    assert f"gone 2.0, here none; torch 1.0, here {TORCH}" in reported[0].message


def test_the_versions_that_made_a_bundle_are_not_reported(made):
    """Nothing differs."""
    checks = verify_bundle(made, in_fresh_process=False, latency_tolerance=0.9).checks

    assert "versions" not in [check.name for check in checks]
