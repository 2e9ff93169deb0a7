"""The task: what the user brings. A task.py defines one, as ``task = Task(...)``.

    task = Task(
        name="fashion-cnn",
        model=build_model,                       # () -> nn.Module
        train=train, validation=None, test=test, # datasets, or () -> dataset
        kind="classification",
    )

**Trained or not.** `model` returns a module with trained weights, or a new one that autocut trains for `epochs` as its baseline.
``pretrained=True`` or ``False`` says which. ``None`` (the default) lets autocut find out: it builds the model under two seeds.
Weights that do not depend on the seed were loaded from somewhere, so they are trained. A function that seeds torch itself defeats
this test and must set `pretrained`.

**Data.** `autocut.task.splits.to_batch` lists the forms that examples may have. All batches have the same shapes except for the
number of examples, because exports fix the shapes. So `collate` pads to one length, or to the longest of each batch where the task
names the dimension: ``dynamic={"input_ids": {1: "length"}}``. A missing validation split is taken from train with the task's seed,
never from test. Where train augments its examples at random, give ``train_eval=``: the same examples in the same order without
augmentation, off which validation is split. The test split is locked as soon as the task exists.

**Loss and metric.** `kind` gives both (`autocut.task.kinds`). ``loss=f(outputs, targets)`` replaces the loss with another scalar.
``metric=f(outputs, targets)`` replaces the scores: one number per example, shape (n,), higher is better. The metric is their mean.
A metric that is no mean (an F1, an AUC) also needs ``summarize=f(scores, targets)``. Then `metric` may return any number per
example, or the k numbers that the metric is made of, shape (n, k): intersections and unions, say, or counts of an F1. `summarize`
turns the numpy arrays of a whole split into one number, higher is better. It is never called on one batch, so it may be undefined
on few examples.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import Subset

from autocut.counting import format_count
from autocut.errors import AutocutError, TaskError, quoted
from autocut.task.batches import tensor_identity, tensors
from autocut.task.building import DEBUG_HINT, build, fold
from autocut.task.dimensions import Dynamic
from autocut.task.file import describe_error
from autocut.task.folding import Folded
from autocut.task.identity import code_hash, state_hash
from autocut.task.kinds import Kind, Scalar, Summary, kinds, with_own_functions
from autocut.task.splits import Collate, Examples, Loader, LockedSplit, length, make_indices, spread, to_dataset

BuildModel = Callable[[], nn.Module]
FINGERPRINT_EXAMPLES = 256


@dataclass(frozen=True, eq=False)
class Task:
    """A model, its data, its loss and its metric. The module's docstring has the rules.

    `optimizer` makes an optimizer for an iterable of parameters (default: AdamW, learning rate 1e-3). `collate` joins a list of
    items into a batch. Latency is measured at the first of `serving_batch_sizes`, throughput at the last. `teacher` builds a larger
    trained model to distil from (default: the model itself). `students` are functions by name that build smaller untrained models:
    a search trains them in the model's place, from the teacher. A bundle carries examples of the test split with their targets;
    ``share_examples=False`` gives it synthetic inputs instead. `output` picks one of several outputs of the model and the teacher
    (`autocut.task.outputs`). `features` names the layers that a distillation compares: one of the model or of a student, with
    one of the teacher. `dynamic` names dimensions of inputs that may differ between batches (`autocut.task.dimensions`).
    `load_task` sets `path` and the sources. `build_model` sets `folded`: the weights that the user's model computes in every call,
    such as weight normalization (`autocut.task.folding`). `know_data` sets `data_hash`, `autocut check` sets `remarks`.
    """

    name: str
    model: BuildModel
    train: Any
    test: Any
    validation: Any = None
    kind: str = "classification"
    loss: Scalar | None = None
    metric: Scalar | None = None
    batch_size: int = 128
    epochs: int = 10
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    collate: Collate | None = None
    serving_batch_sizes: tuple[int, ...] = (1, 32)
    seed: int = 0
    pretrained: bool | None = None
    teacher: BuildModel | None = None
    summarize: Summary | None = None
    share_examples: bool = True
    train_eval: Any = None
    output: str | int | None = None
    dynamic: Dynamic | None = None
    students: Mapping[str, BuildModel] | None = None
    features: Mapping[str, str] | None = None
    path: Path | None = field(default=None, init=False)
    source_sha256: str = field(default="", init=False, repr=False)
    source_files: frozenset[Path] = field(default=frozenset(), init=False, repr=False)
    folded: Folded = field(default_factory=Folded, init=False, repr=False)
    data_hash: str = field(default="", init=False, repr=False)
    remarks: tuple[str, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        """Lock the test split."""
        # `dataclasses.replace` passes the split that is locked already.
        read = self.test if isinstance(self.test, LockedSplit) else partial(self._read, "test", self.test)
        object.__setattr__(self, "test", LockedSplit(read, self.loader))

    @cached_property
    def train_data(self) -> Examples:
        """Training examples, without those of validation."""
        return self._train_and_validation[0]

    @cached_property
    def validation_data(self) -> Examples:
        """Validation examples: the task's own, else 10% of train, or 1,000 if that is more, but at most 20%."""
        return self._train_and_validation[1]

    @property
    def locked_test(self) -> LockedSplit:
        """The test split. It opens only with a `FinalizationKey`."""
        return self.test  # type: ignore[no-any-return]  # __post_init__ put it there

    def loader(
        self,
        dataset: Examples,
        batch_size: int,
        indices: Sequence[int] | NDArray[Any] | Tensor | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> Loader:
        """Batches ``(inputs, targets)`` of `dataset`: in its own order, in the order of `indices`, or shuffled by `seed`.

        The last batch may be smaller. Every iteration gives the same order, so a trainer passes another seed for each epoch.
        """
        if isinstance(dataset, LockedSplit):
            dataset[0]  # raises: a locked split must be opened first
        order = make_indices(length(dataset), indices, shuffle, seed)
        shifts_tokens = self.kind in kinds and kinds[self.kind]().shifts_tokens  # `autocut check` tells an unknown kind
        return Loader(dataset, batch_size, order, self.collate, shifts_tokens=shifts_tokens)

    @cached_property
    def metric_kind(self) -> Kind:
        """Loss, scores and metric: those of `kind`, replaced by the task's own functions.

        Raises:
            UnknownNameError: no such kind.
        """
        return with_own_functions(kinds[str(self.kind)](), self.loss, self.metric, self.summarize)

    def build_model(self, seed: int | None = None) -> nn.Module:
        """Build the model in eval mode, with random weights from `seed` (default: the task's). Computed weights are folded.

        Raises:
            TaskError: the task's function fails, or does not return a model.
        """
        model = self.build_unfolded(seed)
        object.__setattr__(self, "folded", self._fold(model, "task.model"))
        return model

    def build_unfolded(self, seed: int | None = None) -> nn.Module:
        """Build the model as the user's function returns it, in eval mode."""
        return self._build(self.model, "task.model", self.seed if seed is None else seed)

    def build_teacher(self) -> nn.Module | None:
        """Build the task's own teacher in eval mode. None if the untouched model is the teacher."""
        if self.teacher is None:
            return None
        teacher = self._build(self.teacher, "task.teacher", self.seed)
        self._fold(teacher, "task.teacher")
        return teacher

    @property
    def student_names(self) -> tuple[str, ...]:
        """Names of the task's students; none where `students` is no mapping, which `autocut check` tells."""
        return tuple(self.students) if isinstance(self.students, Mapping) else ()

    def build_student(self, name: str) -> nn.Module:
        """Build the student `name` in eval mode, with random weights from the task's seed. Computed weights are folded.

        Raises:
            TaskError: the task has no such student, its function fails, or does not return a model.
        """
        if name not in self.student_names:
            raise TaskError(f"task.students must have {quoted(name)}, got {', '.join(self.student_names) or 'none'}")
        subject = f"task.students[{quoted(name)}]"
        student = self._build((self.students or {})[name], subject, self.seed)
        self._fold(student, subject)
        return student

    def student_hash(self, name: str) -> str:
        """Identity of a student: its first weights and the code of its classes. The fingerprint covers the functions alone."""
        student = self.build_student(name)
        return hashlib.sha256(state_hash(student) + code_hash([student], self.source_files)).hexdigest()

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make the task's optimizer for `parameters`."""
        return self.optimizer(parameters) if self.optimizer else AdamW(parameters, lr=1e-3)

    @cached_property
    def is_pretrained(self) -> bool:
        """Whether `model` returns trained weights. The module's docstring has the rule.

        Raises:
            TaskError: `pretrained` is None and the model's function seeds torch itself, so the rule does not work.
        """
        if self.pretrained is not None:
            return self.pretrained
        first = self._state_hash_for_rule(self.seed)
        return first == self._state_hash_for_rule(self.seed + 1)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the task in every stage key: its source, a sample of its data, its model's weights, and `data_hash`.

        It is the same in every process. The source is task.py, the modules beside it that it imports, and the code elsewhere of the
        model's classes and the task's functions (`autocut.task.identity.code_hash`).

        Raises:
            TaskError: the data cannot be read, or the model cannot be built.
        """
        digest = hashlib.sha256(self.source_sha256.encode() or _source_of(self.model))
        digest.update(repr((self.name, self.kind, self.batch_size, self.epochs, self.seed, self.pretrained)).encode())
        if self.output is not None or self.dynamic is not None:  # a task without them keeps the fingerprint that it always had
            digest.update(repr((self.output, self.dynamic)).encode())
        for split, dataset in (("train", self.train_data), ("validation", self.validation_data)):
            try:
                digest.update(self._sample_hash(dataset))
            except Exception as error:
                # A user's dataset or collate function may raise anything; the user must fix it.
                raise self.data_error(split, error) from error
        model = self.build_model()
        digest.update(state_hash(model))
        functions = (self.model, self.loss, self.metric, self.summarize, self.optimizer, self.collate, self.teacher)
        students = [(self.students or {})[name] for name in self.student_names]
        digest.update(code_hash((model, *functions, *students), self.source_files))
        if self.features is not None:
            digest.update(repr(dict(self.features)).encode())
        if self.data_hash:  # a study of an earlier version goes on without
            digest.update(self.data_hash.encode())
        return digest.hexdigest()

    def know_data(self, data_hash: str) -> None:
        """Make the hash of the data (`autocut.task.data_identity`) a part of the fingerprint. Empty: the sample alone counts."""
        if self.data_hash != data_hash:
            object.__setattr__(self, "data_hash", data_hash)
            vars(self).pop("fingerprint", None)

    def know(self, fingerprint: str, *, is_pretrained: bool, source_sha256: str) -> None:
        """Take over what another process has found for this source: the model is not built again. For another one do nothing."""
        if source_sha256 and self.source_sha256 == source_sha256:
            vars(self).update(fingerprint=fingerprint, is_pretrained=is_pretrained)

    def remark(self, remarks: Iterable[str]) -> None:
        """Take over what the check has found that is no fault."""
        object.__setattr__(self, "remarks", tuple(remarks))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, once the model was built and the task was checked."""
        return (*self.folded.notes(), *self.remarks)

    @cached_property
    def teacher_hash(self) -> str | None:
        """Identity of the task's own teacher: its weights and the code of its classes. None if the model is the teacher.

        The fingerprint covers the function that builds the teacher, but not the weights that the function loads.

        Raises:
            TaskError: the teacher cannot be built.
        """
        teacher = self.build_teacher()
        if teacher is None:
            return None
        return hashlib.sha256(state_hash(teacher) + code_hash([teacher, self.teacher], self.source_files)).hexdigest()

    def data_error(self, split: str, error: Exception) -> TaskError:
        """Return the error for the user after reading batches of `split` raised `error`."""
        if isinstance(error, AutocutError):
            return TaskError(f"task.{split}: {error.message}", error.hint)
        return TaskError(
            f"task.{split} must give batches, got {describe_error(error, self.folder)}", "check __getitem__ and collate="
        )

    def _plain_examples(self, count: int) -> Examples:
        plain = self._read("train_eval", self.train_eval)
        if length(plain) != count:
            raise TaskError(
                f"task.train_eval must hold the {format_count(count, 'example')} of train, got {length(plain)}",
                "build both from the same files; they differ in augmentation alone",
            )
        return plain

    @cached_property
    def _train_and_validation(self) -> tuple[Examples, Examples]:
        train = self._read("train", self.train)
        if self.validation is not None:
            return train, self._read("validation", self.validation)
        count = length(train)
        plain = train if self.train_eval is None else self._plain_examples(count)
        held_out = min(max(count // 10, 1000), count // 5)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        # Sorted, so that examples stay in the order of the files.
        kept, taken = (part.sort().values.tolist() for part in (order[held_out:], order[:held_out]))
        return Subset(train, kept), Subset(plain, taken)

    def _read(self, split: str, data: Any) -> Examples:
        try:
            with seeded(self.seed):
                return to_dataset(data)
        except TaskError as error:
            raise TaskError(f"task.{split}: {error.message}", error.hint) from error
        except Exception as error:
            # A user's function may raise anything; the user must fix it.
            raise TaskError(f"task.{split} must give a dataset, got {describe_error(error, self.folder)}", DEBUG_HINT) from error

    def _build(self, function: BuildModel, subject: str, seed: int) -> nn.Module:
        with seeded(seed):
            return build(function, subject, self.folder, self.output)

    def _fold(self, model: nn.Module, subject: str) -> Folded:
        return fold(model, subject, self.folder)

    def _state_hash_for_rule(self, seed: int) -> bytes:
        seeds_left: list[int] = []

        def observed() -> nn.Module:
            model = self.model()
            seeds_left.append(torch.initial_seed())
            return model

        state = state_hash(self._build(observed, "task.model", seed))
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
                    digest.update(tensor_identity(name, tensor))
        return digest.digest()

    @property
    def folder(self) -> Path | None:
        """Folder of the task file. None if the task was not loaded from a file."""
        return self.path.parent if self.path else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch (CPU), numpy and random, and restore their states afterwards."""
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


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put all modules of `model` in eval mode inside the block. Afterwards each has its own mode again: a user may freeze some."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def _source_of(model: BuildModel) -> bytes:
    """Source of a task that was not loaded from a file (a notebook, a test)."""
    try:
        return inspect.getsource(model).encode()
    except (OSError, TypeError):
        return getattr(model, "__qualname__", type(model).__qualname__).encode()
