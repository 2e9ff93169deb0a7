"""The task: what the user brings. A task.py defines one, as ``task = Task(...)``.

    task = Task(
        name="fashion-cnn",
        model=build_model,                       # () -> nn.Module
        train=train, validation=None, test=test, # datasets, or () -> dataset
        kind="classification",
    )

**Trained or not.** `model` returns a module with trained weights, or a new one that autocut trains for `epochs` to get its
baseline. ``pretrained=True`` or ``False`` says which. ``None`` (the default) finds out: the model is built under two seeds, and
weights that do not depend on the seed have been loaded from somewhere, so they are trained. (A function that seeds torch itself
hides this, and must say which.)

**Data.** See `autocut.task.splits.to_batch` for what examples may look like. Every batch has the same shapes but for the number of
examples: exports fix them, so `collate` pads to one length. Missing validation is split off train with the task's
seed, never off test. The test split is locked from the moment the task is made.

**Judging.** `kind` gives loss and metric (`autocut.task.kinds`). ``loss=f(outputs, targets)`` replaces the loss with another
scalar. ``metric=f(outputs, targets)`` replaces the scores: one number per example, shape (n,), higher is better; the metric is
their mean. For a metric that is no mean (an F1, an AUC) let `metric` return what it is made of and give ``summarize=f(scores,
targets)``, which turns the numpy arrays of a whole split into one number, higher is better.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import AdamW, Optimizer
from torch.utils.data import Subset

from autocut.errors import AutocutError, TaskError
from autocut.task.batches import tensor_bytes, tensors
from autocut.task.file import TaskFile, import_task_file, take_over_path, tell
from autocut.task.identity import code_hash, state_hash
from autocut.task.kinds import Kind, Summary, kinds, mean_score
from autocut.task.splits import Collate, Examples, Loader, LockedSplit, length, make_indices, spread, to_dataset

__all__ = ["Kind", "LockedSplit", "Task", "kinds", "load_task", "seeded"]

BuildModel = Callable[[], nn.Module]
FINGERPRINT_EXAMPLES = 256


@dataclass(frozen=True, eq=False)
class Task:
    """A model, its data and how it is judged; the module's docstring has the rules.

    `optimizer` makes an optimizer for an iterable of parameters (default AdamW, learning rate 1e-3). `collate` joins a list of
    items into a batch. Latency is measured at the first and throughput at the last of `serving_batch_sizes`. `teacher` builds a
    bigger trained model to distil from (default: the model itself). `path` is set by `load_task`.
    """

    name: str
    model: BuildModel
    train: Any
    test: Any
    validation: Any = None
    kind: str = "classification"
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    metric: Callable[[Tensor, Tensor], Tensor] | None = None
    batch_size: int = 128
    epochs: int = 10
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    collate: Collate | None = None
    serving_batch_sizes: tuple[int, ...] = (1, 32)
    seed: int = 0
    pretrained: bool | None = None
    teacher: BuildModel | None = None
    summarize: Summary | None = None
    path: Path | None = field(default=None, init=False)
    source_sha256: str = field(default="", init=False, repr=False)
    source_files: frozenset[Path] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        """Lock the test split."""
        # `dataclasses.replace` hands in the split that is locked already.
        read = self.test if isinstance(self.test, LockedSplit) else partial(self._read, "test", self.test)
        object.__setattr__(self, "test", LockedSplit(read, self.loader))

    @cached_property
    def train_data(self) -> Examples:
        """Training examples, without those that validation took."""
        return self._train_and_validation[0]

    @cached_property
    def validation_data(self) -> Examples:
        """Validation examples: the task's own, else 10% of train (at least 1,000 where that is not above 20%)."""
        return self._train_and_validation[1]

    @property
    def locked_test(self) -> LockedSplit:
        """The test split, which opens with a `FinalizationKey` only."""
        return self.test  # type: ignore[no-any-return]  # __post_init__ put it there

    def loader(
        self,
        dataset: Examples,
        batch_size: int,
        indices: Sequence[int] | NDArray[Any] | Tensor | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> Loader:
        """Batches ``(inputs, targets)`` of `dataset`, in its order, the order of `indices`, or shuffled by `seed`.

        The last batch may be smaller. Iterating again gives the same order: a trainer passes another seed for each epoch.
        """
        if isinstance(dataset, LockedSplit):
            dataset[0]  # raises: a locked split has to be opened first
        order = make_indices(length(dataset), indices, shuffle, seed)
        shifts_tokens = self.kind in kinds and kinds[self.kind]().shifts_tokens  # `autocut check` tells an unknown kind
        return Loader(dataset, batch_size, order, self.collate, shifts_tokens=shifts_tokens)

    @cached_property
    def metric_kind(self) -> Kind:
        """Loss, scores and metric: those of `kind`, with the task's own in place.

        Raises:
            UnknownNameError: no such kind.
        """
        return _with_own_functions(kinds[str(self.kind)](), self)

    def build_model(self, seed: int | None = None) -> nn.Module:
        """Build the model in eval mode, its random weights drawn from `seed` (default: the task's).

        Raises:
            TaskError: the task's function fails or returns something else.
        """
        return self._build(self.model, "task.model", self.seed if seed is None else seed)

    def build_teacher(self) -> nn.Module | None:
        """Build the task's own teacher in eval mode, or None where the untouched model is the teacher."""
        return None if self.teacher is None else self._build(self.teacher, "task.teacher", self.seed)

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the task's optimizer for `parameters`."""
        return self.optimizer(parameters) if self.optimizer else AdamW(parameters, lr=1e-3)

    @cached_property
    def is_pretrained(self) -> bool:
        """Whether `model` returns trained weights; see the rule in the module's docstring.

        Raises:
            TaskError: `pretrained` is None and the model's function seeds torch itself, so that nothing can be told.
        """
        if self.pretrained is not None:
            return self.pretrained
        first = self._state_hash_for_rule(self.seed)
        return first == self._state_hash_for_rule(self.seed + 1)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the task in every stage key: its source, its data (a sample) and its model's weights.

        The same in every process. The source is task.py with the modules beside it that it imports, and the code elsewhere that
        the model's classes and the task's functions are made of (`autocut.task.identity.code_hash`).

        Raises:
            TaskError: the data cannot be read, or the model cannot be built.
        """
        digest = hashlib.sha256(self.source_sha256.encode() or _source_of(self.model))
        digest.update(repr((self.name, self.kind, self.batch_size, self.epochs, self.seed, self.pretrained)).encode())
        for split, dataset in (("train", self.train_data), ("validation", self.validation_data)):
            try:
                digest.update(self._sample_hash(dataset))
            except Exception as error:
                # A user's dataset or collate function: whatever it raises is theirs to mend.
                raise self.data_error(split, error) from error
        model = self.build_model()
        digest.update(state_hash(model))
        functions = (self.model, self.loss, self.metric, self.summarize, self.optimizer, self.collate, self.teacher)
        digest.update(code_hash((model, *functions), self.source_files))
        return digest.hexdigest()

    @cached_property
    def teacher_hash(self) -> str | None:
        """Identity of the task's own teacher, from its weights and its classes' code; None where the model is the teacher.

        The fingerprint knows the function that builds the teacher, but not the weights that it loads.

        Raises:
            TaskError: the teacher cannot be built.
        """
        teacher = self.build_teacher()
        if teacher is None:
            return None
        return hashlib.sha256(state_hash(teacher) + code_hash([teacher, self.teacher], self.source_files)).hexdigest()

    def data_error(self, split: str, error: Exception) -> TaskError:
        """Return what the user is told where reading batches of `split` raised `error`."""
        if isinstance(error, AutocutError):
            return TaskError(f"task.{split}: {error.message}", error.hint)
        return TaskError(f"task.{split} must give batches, got {tell(error, self.folder)}", "check __getitem__ and collate=")

    @cached_property
    def _train_and_validation(self) -> tuple[Examples, Examples]:
        train = self._read("train", self.train)
        if self.validation is not None:
            return train, self._read("validation", self.validation)
        count = length(train)
        held_out = min(max(count // 10, 1000), count // 5)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        # Sorted, so that examples stay in the order of the files.
        return (Subset(train, order[held_out:].sort().values.tolist()), Subset(train, order[:held_out].sort().values.tolist()))

    def _read(self, split: str, data: Any) -> Examples:
        try:
            with seeded(self.seed):
                return to_dataset(data)
        except TaskError as error:
            raise TaskError(f"task.{split}: {error.message}", error.hint) from error
        except Exception as error:
            # A user's own function: whatever it raises is theirs to mend.
            raise TaskError(
                f"task.{split} must give a dataset, got {tell(error, self.folder)}",
                "call it in `python -i task.py` to see the traceback",
            ) from error

    def _build(self, build: BuildModel, subject: str, seed: int) -> nn.Module:
        try:
            with seeded(seed):
                model = build()
        except TaskError:
            raise
        except Exception as error:
            # As above: a user's own function.
            raise TaskError(
                f"{subject} must be a function that builds a model, got {tell(error, self.folder)}",
                "call it in `python -i task.py` to see the traceback",
            ) from error
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"{subject} must return a torch.nn.Module, got {type(model).__name__}", f"{subject.partition('.')[2]}=lambda: net"
            )
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if is_lazy(tensor):
                raise TaskError(
                    f"{subject} must return a model with known shapes, got the uninitialized {name}",
                    f"run one batch through the model inside {subject.partition('.')[2]}()",
                )
        return model.eval()

    def _state_hash_for_rule(self, seed: int) -> bytes:
        seeds_left: list[int] = []

        def build() -> nn.Module:
            model = self.model()
            seeds_left.append(torch.initial_seed())
            return model

        state = state_hash(self._build(build, "task.model", seed))
        if seeds_left != [seed]:
            raise TaskError(
                "task.pretrained must be True or False where model() seeds torch itself, got None",
                "add pretrained=True for trained weights, pretrained=False to have autocut train the baseline",
            )
        return state

    def _sample_hash(self, dataset: Examples) -> bytes:
        count = length(dataset)
        digest = hashlib.sha256(str(count).encode())
        with seeded(self.seed):
            for inputs, targets in self.loader(dataset, self.batch_size, spread(count, FINGERPRINT_EXAMPLES)):
                for name, tensor in {**tensors(inputs), "": targets}.items():
                    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor))
        return digest.digest()

    @property
    def folder(self) -> Path | None:
        """Folder of the task file, None for a task that was not loaded from one."""
        return self.path.parent if self.path else None


def load_task(path: str | Path | None) -> Task:
    """Load the task that the Python file `path` defines under the name ``task``; None loads the embedded digits task.

    Loading an unchanged file again in one process returns the same object, with its data.

    Raises:
        TaskError: in every way that this can fail.
    """
    if path is None:
        module = importlib.import_module("autocut.tasks.digits")
        path = Path(str(module.__file__))
        return _attach(module.task, path, hashlib.sha256(path.read_bytes()).hexdigest(), [path])
    file = Path(path).expanduser().resolve()
    known = _loaded.get(file)
    if known is not None and _is_unchanged(*known):
        take_over_path(file)  # its folder may have left sys.path: for another task's, or with a fork's surroundings
        return known[1]
    imported = import_task_file(file)
    task = _attach(_find_task(vars(imported.module), file), file, imported.sha256(), (source for _, source in imported.files))
    _loaded[file] = (imported, task)
    return task


_loaded: dict[Path, tuple[TaskFile, Task]] = {}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch (CPU), numpy and random for a while, and give them their states back after."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _with_own_functions(kind: Kind, task: Task) -> Kind:
    """Put the task's loss, metric and summary in the place of the kind's."""
    loss = task.loss or kind.loss
    if task.metric is None:
        return replace(kind, loss=loss, summarize=task.summarize or kind.summarize)
    return replace(
        kind,
        name=getattr(task.metric, "__name__", "metric"),
        loss=loss,
        scores=task.metric,
        summarize=task.summarize or mean_score,
        is_binary=False,
        chance=None,
    )


def _attach(task: Task, path: Path, sha256: str, files: Iterable[Path]) -> Task:
    object.__setattr__(task, "path", path)
    object.__setattr__(task, "source_sha256", sha256)
    object.__setattr__(task, "source_files", frozenset(files))
    return task


def _is_unchanged(imported: TaskFile, task: Task) -> bool:
    try:
        return imported.sha256() == task.source_sha256
    except OSError:
        return False


def _find_task(names: Mapping[str, Any], file: Path) -> Task:
    found = names.get("task")
    if isinstance(found, Task):
        return found
    if found is not None:
        raise TaskError(f"`task` must be an autocut.Task, got {type(found).__name__} ({file.name})", "task = autocut.Task(...)")
    others = [name for name, value in names.items() if isinstance(value, Task)]
    if not others:
        raise TaskError(f"a task file must define `task`, got none ({file.name})", "task = autocut.Task(...)")
    got = others[0] if len(others) == 1 else f"{len(others)} tasks under other names: {', '.join(others)}"
    raise TaskError(f"a task file must name its task `task`, got {got} ({file.name})", f"task = {others[0]}")


def _source_of(model: BuildModel) -> bytes:
    """Source of a task that no file was loaded for (a notebook, a test)."""
    try:
        return inspect.getsource(model).encode()
    except (OSError, TypeError):
        return getattr(model, "__qualname__", type(model).__qualname__).encode()
