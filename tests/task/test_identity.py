"""Code outside the task's own folder that affects its results."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from torch import nn

import autocut
from autocut.task.identity import code_hash

NETS = """
    from bases_elsewhere import Base
    from torch import nn

    class Net(Base):
        pass

    def build():
        return nn.Sequential(nn.ReLU(), Net())
"""
CODE = "from autocut.task.identity import code_hash; import nets_elsewhere as nets; print(code_hash([nets.build(), None]).hex())"


@pytest.fixture(name="elsewhere")
def _elsewhere(tmp_path, monkeypatch):
    """Write and import two modules of a user's library that lies beside no task; `change` rewrites one of them."""

    def change(name="bases_elsewhere", text="from torch import nn\nclass Base(nn.Module):\n    pass\n"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))

    change()
    change("nets_elsewhere", NETS)
    monkeypatch.syspath_prepend(tmp_path)
    yield change
    for name in ("bases_elsewhere", "nets_elsewhere"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["nets_elsewhere", "bases_elsewhere"])
def test_the_source_of_a_models_classes_and_of_their_bases_counts(elsewhere, name):
    """An editable install changes results without a new version."""
    import nets_elsewhere

    model = nets_elsewhere.build()
    before = code_hash([model])
    elsewhere(name, "# another version")

    assert code_hash([model]) != before


@pytest.mark.parametrize("wrap", [lambda f: f, partial, lambda f: type("Callable", (), {"__module__": f.__module__})()])
def test_the_source_of_a_loss_counts_in_every_form(elsewhere, wrap):
    """A function, a partial of one, an object that can be called."""
    import nets_elsewhere

    loss = wrap(nets_elsewhere.build)
    before = code_hash([loss])
    elsewhere("nets_elsewhere", "# another version")

    assert code_hash([loss]) != before


def test_the_version_of_an_installed_package_counts(monkeypatch):
    """A package has many files; its version identifies them."""
    from torch_pruning import DependencyGraph

    before = code_hash([DependencyGraph])
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"99 of {name}")

    assert code_hash([DependencyGraph]) != before != code_hash([])


def test_torch_the_standard_library_and_known_files_do_not_count(elsewhere):
    """Stage keys name torch, and the caller hashes the task's own files."""
    import nets_elsewhere

    nothing = code_hash([])
    assert code_hash([nn.Linear(2, 2), nn.functional.mse_loss, textwrap.dedent, len, None]) == nothing
    assert code_hash([nets_elsewhere.build], known={Path(nets_elsewhere.__file__)}) == nothing


def test_the_hash_of_code_is_the_same_in_every_process(elsewhere, tmp_path):
    """Addresses and the order of imports may not enter it."""
    import nets_elsewhere

    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    root = Path(autocut.__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", path + CODE], cwd=root, capture_output=True, text=True, check=True)

    assert other.stdout.strip() == code_hash([None, nets_elsewhere.build()]).hex() != code_hash([]).hex()
