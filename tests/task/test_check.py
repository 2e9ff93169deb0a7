"""`autocut check`: every fault at once."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut.task.check import check_task, faults_of
from autocut.task.task import Task

GOOD = """
import torch
from torch import nn
from autocut import Task

def split(seed):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)

task = Task(name="tiny", model=lambda: nn.Linear(4, 3), train=split(0), validation=split(1), test=split(2))
"""


def data(count=60, seed=0, classes=3):
    """Examples of four numbers and three classes."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :classes].argmax(1))


def messages(**changes):
    """Faults of a small task, in one text."""
    task = Task(
        **{
            "name": "tiny",
            "model": lambda: nn.Linear(4, 3),
            "train": data(),
            "validation": data(seed=1),
            "test": data(seed=2),
            **changes,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faults = faults_of(task)
    assert all(fault.hint for fault in faults)
    return "\n".join(fault.message for fault in faults)


class Wrapped(nn.Module):
    """A linear layer whose output goes through a function."""

    def __init__(self, after):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.after = after

    def forward(self, x):
        """(n, 4) -> (n, 3)."""
        return self.after(self.layer(x))


SHARED = nn.Linear(4, 3)


def with_nan(dataset):
    """One example with a NaN."""
    dataset.tensors[0][17, 2] = float("nan")
    return dataset


def frozen():
    """A model that cannot be trained."""
    return nn.Linear(4, 3).requires_grad_(False)


def rows(**changes):
    """Items as mappings, as Hugging Face's datasets give them."""
    return [{"input": x, "label": y, **changes} for x, y in data(seed=5)]


class Broken(list):
    """One example, which no first batch has, cannot be read."""

    def __getitem__(self, index):
        """One item."""
        return super().__getitem__(index // (index != 50))


FAULTS = {
    "task.name must be": {"name": "a/b"},
    "task.kind must be one of classification": {"kind": "detection"},
    ", got ['regression']": {"kind": ["regression"]},
    "task.batch_size must be an integer": {"batch_size": 0},
    "task.epochs must be an integer": {"epochs": 1.5},
    "task.share_examples must be True or False, got 'no'": {"share_examples": "no"},
    "task.serving_batch_sizes must be rising": {"serving_batch_sizes": (32, 1)},
    "task.train must hold examples, got 0": {"train": data(0), "validation": data(seed=1)},
    "task.train must hold at least 5 examples where validation is split off it, got 3": {"train": data(3), "validation": None},
    "task.test must hold examples, got 0": {"test": data(0)},
    "task.train must give a dataset, got FileNotFoundError": {"train": lambda: open("/nowhere/file")},  # noqa: PTH123, SIM115
    "NaN or infinity in input_0 of example 17": {"validation": with_nan(data(seed=1))},
    "task.train and task.test must not overlap, got 60 of 60": {"test": data()},
    "task.train and task.validation must not overlap": {"validation": data()},
    "task.validation and task.test must not overlap": {"test": data(seed=1)},
    "task.model must be a function that builds the model, got the model itself": {"model": nn.Linear(4, 3)},
    "task.model must return a torch.nn.Module, got dict": {"model": dict},
    "task.model must have parameters, got none": {"model": nn.Identity},
    "require grad, got none": {"model": frozen},
    "must build a new module each time": {"model": lambda: SHARED, "pretrained": True},
    "must run on a batch of train ((32, 4) float32), got RuntimeError": {"model": lambda: nn.Linear(5, 3)},
    "got KeyError": {"model": lambda: Wrapped(lambda x: {}["x"])},
    "outputs must have shape (32, 2 or more classes) for kind 'classification', got (32, 1)": {"model": lambda: nn.Linear(4, 1)},
    "targets must be within 0..1 for a model with 2 outputs, got 2": {"model": lambda: nn.Linear(4, 2)},
    "outputs must have the shape of the targets (32,) for kind 'regression', got (32, 3)": {"kind": "regression"},
    "must answer the same twice in eval mode": {"model": lambda: Wrapped(torch.nn.functional.dropout)},
    "loss must be one finite number, got nan": {"model": lambda: Wrapped(lambda x: x / 0 * 0)},
    "loss must be one finite number, got shape (32,)": {"loss": nn.CrossEntropyLoss(reduction="none")},
    "metric must give one number for each of 32 examples, got shape ()": {"metric": lambda outputs, targets: outputs.mean()},
    "must take (outputs, targets) of train, got TypeError": {"loss": lambda outputs: outputs},
    "with the same weights for every seed must be trained, got accuracy 0.": {
        "model": lambda: nn.utils.skip_init(nn.Linear, 4, 3).apply(
            lambda layer: layer.weight.data.zero_() + layer.bias.data.zero_()[0]
        )
    },
    "task.model must return a model with known shapes, got the uninitialized weight": {"model": lambda: nn.LazyLinear(3)},
    "task.teacher must answer in the shape of the model (32, 3), got (32, 5)": {"teacher": lambda: nn.Linear(4, 5)},
    "task.teacher must run on a batch of train ((32, 4) float32), got RuntimeError": {"teacher": lambda: nn.Linear(5, 3)},
    "task.teacher must return a torch.nn.Module, got int": {"teacher": lambda: 5},
    "task.train: input 'text' of a batch must be a tensor, got tuple of str": {"train": rows(text="so"), "validation": rows()},
    "task.train: input 'x' of a batch must be a tensor, got tuple of Tensor": {"train": rows(x=[0.5, 0.5]), "validation": rows()},
    "task.train: targets 'label' of a batch must be a tensor, got tuple of str": {"train": rows(label="cat"), "validation": rows()},
    "task.train must give batches, got ZeroDivisionError": {"train": Broken(data()), "validation": data(seed=1)},
    "task.test must give batches, got ZeroDivisionError": {"test": Broken(data(seed=2))},
    "must be exportable by torch.export": {"model": lambda: Wrapped(lambda x: x * 2 if x.sum() > 0 else x)},
}


def test_a_good_task_has_no_faults():
    """And no warnings reach the user."""
    assert messages() == ""


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_is_found_and_has_a_hint(expected):
    """Each of them, in a task that is otherwise good."""
    assert expected in messages(**FAULTS[expected])


def test_a_random_validation_split_is_a_fault():
    """Two trials could not be compared on it."""

    class Noisy(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.rand(()), y

    assert "must give the same examples each time" in messages(validation=Noisy(*data(seed=1).tensors))


def test_natural_duplicates_are_no_fault():
    """Tables of few columns repeat themselves; that is no leak."""
    few = [torch.randint(0, 3, (400, 4), generator=torch.Generator().manual_seed(seed)).float() for seed in range(3)]
    splits = [TensorDataset(x, x[:, :3].argmax(1)) for x in few]

    assert "overlap" not in messages(train=splits[0], validation=splits[1], test=splits[2])


@pytest.mark.parametrize("kind", ["regression", "language_modeling"])
def test_the_other_kinds_have_good_tasks_too(kind):
    """Their shapes pass."""
    if kind == "regression":
        splits = [(data(seed=seed).tensors[0], data(seed=seed).tensors[0][:, 0]) for seed in range(3)]
        model = lambda: nn.Linear(4, 1)  # noqa: E731
    else:
        splits = [[torch.randint(0, 20, (9,)) for _ in range(50)] for _ in range(3)]
        model = lambda: nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))  # noqa: E731
    assert messages(kind=kind, model=model, train=splits[0], validation=splits[1], test=splits[2]) == ""


def test_a_loss_and_metric_of_ones_own_may_take_any_shape():
    """The kind's shapes do not apply to them."""
    rows = TensorDataset(torch.randn(60, 4), torch.randn(60, 3))
    options = {"loss": nn.functional.mse_loss, "metric": lambda outputs, targets: -(outputs - targets).abs().mean(1)}

    assert messages(train=rows, validation=TensorDataset(*(part + 1 for part in rows.tensors)), **options) == ""


class Answer:
    """What a model may answer with: an object with logits."""

    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("name", ["tensor", "mapping"])
def test_a_model_that_answers_with_logits_is_exported_as_the_pipeline_does(name):
    """torch.export by itself refuses an object that it does not know."""
    splits = [
        [{"numbers": x, "label": y} for x, y in data(seed=seed)] if name == "mapping" else data(seed=seed) for seed in range(3)
    ]

    class Model(Wrapped):
        def forward(self, numbers):
            return super().forward(numbers)

    assert messages(model=lambda: Model(Answer), train=splits[0], validation=splits[1], test=splits[2]) == ""


def test_data_that_cannot_be_read_is_not_reported_as_a_model_that_cannot_be_pickled(tmp_path):
    """Each split once, although the worker's check meets the same error again."""
    broken = "return [(row, None if i == 43 else 0) for i, row in enumerate(x)]"
    (tmp_path / "task.py").write_text(GOOD.replace("return x, x[:, :3].argmax(1)", broken))
    found = sorted(fault.message.partition(", got")[0] for fault in check_task(tmp_path / "task.py"))

    assert found == ["task.train must give batches", "task.validation must give batches"]


def padded(longest):
    """Texts of four to `longest` tokens, and a collate function that pads each batch to its own longest."""
    tokens = [torch.arange(i, i + 4 + i % (longest - 3)) % 20 for i in range(60)]

    def collate(items):
        rows = nn.utils.rnn.pad_sequence(items, batch_first=True)
        return rows, rows[:, 0] % 3

    splits = {"train": tokens[:20], "validation": tokens[20:40], "test": tokens[40:]}
    return {"collate": collate, "model": lambda: nn.Sequential(nn.EmbeddingBag(20, 3)), "pretrained": False, **splits}


def test_batches_of_varying_length_are_a_fault_before_they_fail_in_an_export():
    """An export fixes every size except the batch size."""
    found = messages(**padded(longest=33))

    assert "task's input_0 must have one shape beyond the batch, got (8, 11) and (8, 19)" in found
    assert "one shape" not in messages(**padded(longest=4))


def test_float_targets_of_varying_length_leave_no_traceback():
    """The inputs vary with them, and their fault is reported."""

    def collate(items):
        rows = nn.utils.rnn.pad_sequence([x[: 2 + int(y)] for x, y in items], batch_first=True)
        return rows, rows * 2

    splits = {"train": list(data())[::-1], "validation": sorted(data(seed=1), key=lambda item: int(item[1])), "test": data(seed=2)}
    found = messages(collate=collate, kind="regression", model=lambda: Scale(), **splits)

    assert "one shape beyond the batch" in found


class Scale(nn.Module):
    """One factor for any shape."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(()))

    def forward(self, x):
        """The same shape."""
        return x * self.factor


def test_labels_that_the_model_would_shift_itself_are_a_fault():
    """With Hugging Face's convention the model would learn to copy, unless the task's own loss and metric shift."""
    splits = [[{"input": row, "labels": row} for row in torch.randint(0, 20, (50, 9))] for _ in range(3)]
    options = {"model": lambda: nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20)), "kind": "language_modeling"}
    options |= {"train": splits[0], "validation": splits[1], "test": splits[2]}
    own = {"loss": lambda outputs, targets: outputs.mean(), "metric": lambda outputs, targets: outputs.mean((1, 2))}

    assert "targets must be the next tokens" in messages(**options)
    assert "next tokens" not in messages(**options, **own)


def test_an_example_that_only_the_whole_validation_split_has_leaves_no_traceback():
    """A token beyond the embedding, for one."""
    ids = torch.arange(60)[:, None] % 3
    loaded = nn.Embedding(3, 3).state_dict()

    def model():
        table = nn.EmbeddingBag(3, 3)
        table.load_state_dict(loaded)
        return table

    late = ids.clone()
    late[-1] = 7
    found = messages(model=model, train=(ids, ids[:, 0]), validation=(late, ids[:, 0]), test=(ids, ids[:, 0]))

    assert "task.model must run on every batch of validation, got" in found


def test_a_wrong_batch_size_is_one_fault():
    """The checks that read batches go on with a size of their own."""
    assert messages(batch_size="64") == "task.batch_size must be an integer of at least 1, got '64'"


def test_a_model_that_seeds_torch_is_told_beside_the_other_faults():
    """Nobody can find out whether its weights are trained."""

    def model():
        torch.manual_seed(0)
        return nn.Linear(4, 3)

    text = messages(model=model, epochs=1.5)
    assert "task.pretrained must be True or False where model() seeds torch itself" in text
    assert text.count("\n") == 1


def test_a_good_teacher_has_no_faults():
    """It may be bigger than the model."""
    assert messages(teacher=lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))) == ""


def test_all_faults_are_reported_at_once(tmp_path):
    """A user corrects a file in one go."""
    file = tmp_path / "task.py"
    text = (
        GOOD.replace('"tiny"', '"ti ny"')
        .replace("nn.Linear(4, 3)", "nn.Linear(5, 3)")
        .replace("test=split(2)", "test=split(1), epochs=0")
    )
    file.write_text(text)
    found = "\n".join(fault.message for fault in check_task(file))

    for part in ("task.name", "task.epochs", "task.model must run", "task.validation and task.test must not overlap"):
        assert part in found


def test_a_file_that_does_not_load_is_one_fault(tmp_path):
    """With the hint of its error."""
    (tmp_path / "task.py").write_text("import no_such_module_anywhere")
    (fault,) = check_task(tmp_path / "task.py")

    assert "no_such_module_anywhere" in fault.message
    assert fault.hint.startswith("pip install")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("model=lambda: nn.Linear(4, 3)", "model=make_local"), "task.model must be picklable"),
        (("manual_seed(seed)", "manual_seed(seed + __import__('os').getpid())"), "must be the same in every process"),
        (
            ("def split", "from pathlib import Path\nPath('here.txt').read_text()\ndef split"),
            "a worker process must be able to load the task, got",
        ),
        (("", ""), None),
    ],
    ids=["local class", "another each time", "relative path", "good"],
)
def test_a_task_that_a_worker_process_cannot_load_is_a_fault(tmp_path, monkeypatch, change, expected):
    """It runs in another process and another folder, as a worker does."""
    local = "def make_local():\n    class Local(nn.Linear):\n        pass\n    return Local(4, 3)\n\ntask ="
    (tmp_path / "here.txt").write_text("found from here only")
    (tmp_path / "task.py").write_text(GOOD.replace("task =", local).replace(*change))
    monkeypatch.chdir(tmp_path)
    found = [fault.message for fault in check_task("task.py")]

    assert (expected is None and found == []) or (len(found) == 1 and expected in found[0])
