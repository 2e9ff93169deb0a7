"""What the fork server imports: all that jobs will, nothing that a fork would break."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from autocut.search.server_process import _environment

_ALL = """
import json, sys
from autocut.search.imports import foreign_threads, import_for_start, imports_for_later
import_for_start()
list(imports_for_later(None))
from autocut.stages.libraries import required_libraries
print(json.dumps([foreign_threads(), sorted(sys.modules), required_libraries()]))
"""
_OF_A_TASK = """
import sys
from autocut.search import imports
imports._WORKER, imports._LAZY_LIBRARIES = "autocut.errors", ()
list(imports.imports_for_later(sys.argv[1]))
print([name for name in ("data", "library", "threaded") if name in sys.modules])
"""


def python(code, *arguments, path=()):
    """What a fresh process with the server's environment says, in a search with two threads."""
    environment = {**_environment(), "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), environment["PYTHONPATH"]])
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def imported():
    """Threads and modules of a process that has imported everything, and what registered methods require."""
    return json.loads(python(_ALL))


def test_importing_everything_starts_no_thread(imported):
    """A fork has the calling thread alone, and waits forever for what another one has locked."""
    assert imported[0] == []


def test_whatever_methods_require_and_stages_import_when_they_run_is_there(imported):
    """The list is the registries' and the source's own: a new method's library is in it without being named here."""
    _, modules, required = imported

    assert set(required) <= set(modules)
    assert {"torchao.quantization.pt2e.quantize_pt2e", "onnxruntime.quantization", "torch._inductor.compile_fx"} <= set(modules)
    assert {"torch.export._trace", "torch.onnx._internal.exporter._compat", "autocut.tasks.digits"} <= set(modules)
    assert "autocut.deploy.finalize" in modules


def test_what_only_the_driver_needs_is_not_there(imported):
    """It would be in every worker's memory."""
    assert not {"ray", "optuna", "sqlalchemy"} & set(imported[1])


@pytest.mark.parametrize(("library", "found"), [("library", ["library"]), ("threaded", [])])
def test_of_a_task_the_installed_packages_are_imported(library, found, tmp_path):
    """Its own modules are the worker's to load, and a package that starts threads is not for a process that forks."""
    installed, own = tmp_path / "installed", tmp_path / "own"
    installed.mkdir()
    own.mkdir()
    (installed / "library.py").write_text("")
    (installed / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    )
    (own / "data.py").write_text(
        textwrap.dedent(f"""
        def read():
            import {library}
    """)
    )
    (own / "task.py").write_text("import data\nimport not_installed\n")

    assert python(_OF_A_TASK, str(own / "task.py"), path=[installed]) == str(found)
