"""The process that looks at the task before a search: it is killed once it has answered."""

import subprocess
import sys
import textwrap

LOOK = """
    import sys
    from autocut.execution.preflight import preflight

    if __name__ == "__main__":
        print(preflight(sys.argv[1]).task.name)
"""

LEAVES = """
    import multiprocessing
    from multiprocessing.shared_memory import SharedMemory

    lock = multiprocessing.Lock()
    spawned = multiprocessing.get_context("spawn").Lock()
    memory = SharedMemory(create=True, size=64)
"""

STARTS_PROCESSES = """
    import multiprocessing

    def double(number):
        return 2 * number

    with multiprocessing.Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
"""


def look(task_file, more):
    """Look at the task, whose file has `more` lines, as a search does; return what the process has told."""
    script = task_file.parent / "look.py"
    script.write_text(textwrap.dedent(LOOK))
    task_file.write_text(task_file.read_text() + textwrap.dedent(more))
    # stderr is read to its end: also what a process says that outlives this one.
    return subprocess.run([sys.executable, str(script), str(task_file)], capture_output=True, text=True, check=False, timeout=200)


def test_what_a_task_leaves_is_removed_without_a_word(small_task_file):
    """Locks, as tqdm makes one, and shared memory: Python would warn of leaks, after the hint of a search that is refused."""
    told = look(small_task_file, LEAVES)

    assert (told.returncode, told.stdout, told.stderr) == (0, "small\n", "")


def test_a_task_may_start_processes(small_task_file):
    """As in a worker, and as in a program of the user's own: they know the functions of the task's file."""
    told = look(small_task_file, STARTS_PROCESSES)

    assert (told.returncode, told.stdout, told.stderr) == (0, "small\n", "")
