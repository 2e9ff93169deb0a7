"""What the fork server imports and reads: all that jobs will, nothing that a fork would break."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from autocut.execution.server_process import _environment

_ALL = """
import json, sys
from autocut.execution.forkable import foreign_threads
from autocut.execution.preparation import import_for_start, prepare_for_later
import_for_start()
list(prepare_for_later(None))
from autocut.stages.libraries import required_libraries
print(json.dumps([foreign_threads(), sorted(sys.modules), required_libraries()]))
"""
_OF_A_TASK = """
import sys
from autocut.execution import preparation
preparation._WORKER, preparation._EXPORTER, preparation._late_imports = "autocut.errors", "autocut.errors", tuple
list(preparation.prepare_for_later(sys.argv[1]))
print([name for name in ("data", "library", "threaded") if name in sys.modules])
"""
_JOB = """
import os, sys
from autocut.execution import preparation
preparation._WORKER, preparation._EXPORTER, preparation._late_imports = "autocut.errors", "autocut.errors", tuple
given = list(sys.path)
list(preparation.prepare_for_later(sys.argv[1]))
exec(sys.argv[3])
job = os.fork()
if job == 0:
    sys.path[:] = given  # as a job's surroundings do
    import torch
    from autocut.task.loading import load_task
    torch.set_num_threads(2)
    task = load_task(sys.argv[1])
    assert len(task.fingerprint) == 64
    assert torch.ones(600, 600).matmul(torch.ones(600, 600)).mean() == 600
    os._exit(0)
assert os.waitpid(job, 0)[1] == 0
readers = open(sys.argv[2]).read().split()
print(len(readers), str(os.getpid()) in readers, str(job) in readers)
"""
_TASK = """
import os, threading, time
import torch
from torch import nn
from torch.utils.data import TensorDataset
from autocut import Task

def read():
    {on_the_way}
    with open({log!r}, "a") as log:
        print(os.getpid(), file=log)
    data = torch.ones(600, 600).matmul(torch.ones(600, 600))  # with two threads, wherever there may be two
    return TensorDataset(data, torch.arange(600) % 2)

def model():
    import sizes
    return nn.Linear(600, sizes.CLASSES)

def test():
    raise RuntimeError("nobody reads the test split before finalization")

task = Task(name="own", model=model, train=read, test=test, pretrained=False)
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
    starts_a_thread = {"openvino", "nncf"}  # importing them is each worker's own affair (`stages.compile.openvino`)

    assert set(required) - starts_a_thread <= set(modules)
    assert {"torchao.quantization.pt2e.quantize_pt2e", "onnxruntime.quantization", "torch._inductor.compile_fx"} <= set(modules)
    assert {"torch.export._trace", "torch.onnx._internal.exporter._compat", "autocut.tasks.digits"} <= set(modules)
    assert "autocut.deploy.finalize" in modules


def test_what_only_the_driver_needs_is_not_there(imported):
    """It would be in every worker's memory."""
    assert not {"ray", "optuna", "sqlalchemy"} & set(imported[1])


@pytest.mark.parametrize(("library", "found"), [("library", ["library"]), ("threaded", [])])
def test_of_a_task_the_installed_packages_are_imported(library, found, tmp_path):
    """A package that starts threads is not for a process that forks; a task that cannot be loaded is the worker's to tell."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
@pytest.mark.parametrize(
    ("on_the_way", "afterwards", "found"),
    [
        ("pass", "", "2 True False"),
        ("threading.Thread(target=time.sleep, args=(99,), daemon=True).start()", "", "2 False True"),
        ("pass", "open(sys.argv[1], 'a').write('# another task')", "3 True True"),
    ],
)
def test_a_tasks_data_is_read_once_for_all_jobs(on_the_way, afterwards, found, tmp_path):
    """It is tried out, then read here and by no job; by each where reading starts a thread, or the task has changed since."""
    task, log = tmp_path / "task.py", tmp_path / "readers"
    task.write_text(_TASK.format(on_the_way=on_the_way, log=str(log)))
    (tmp_path / "sizes.py").write_text("CLASSES = 2")

    assert python(_JOB, str(task), str(log), afterwards) == found
