"""A method of every axis, and a kind of task, from one file each: nothing else in autocut changes."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import autocut
from autocut.recipe import IDENTITY
from autocut.space import load_space, shipped_spaces
from autocut.stages.methods import REGISTRIES, every_method, known_methods
from autocut.study import open_study

PLUG_INS = {
    "pruner": """
        import copy
        from autocut.stages.prune import Pruned, pruners

        @pruners.register("toy_prune")
        def prune(model, ratio, data):
            "Zero the smallest weights of the first layer."
            pruned = copy.deepcopy(model)
            name, weight = next(iter(pruned.named_parameters()))
            mask = weight.detach().abs() > weight.detach().abs().quantile(ratio)
            weight.data.mul_(mask)
            return Pruned(pruned, {name: mask})
    """,
    "curriculum": """
        from autocut.stages.train import curricula

        @curricula.register("toy_pace")
        def pace(progress, start):
            "Use the first share, then everything."
            return start if progress < 0.5 else 1.0
    """,
    "order": """
        import numpy as np
        from autocut.stages.train import orders

        @orders.register("toy_order")
        def order(difficulty, generator):
            "Bring the last example into use first."
            return np.arange(len(difficulty))[::-1].copy()
    """,
    "loss": """
        from torch.nn import functional
        from autocut.stages.train import distillations

        @distillations.register("toy_loss")
        def distill(student, teacher, temperature):
            "Mean squared difference of the outputs."
            return functional.mse_loss(student, teacher)
    """,
    "dtype": """
        import copy
        import torch
        from torch import nn
        from torch.nn import functional
        from autocut.stages.quantize import quantizers

        class HalfLinear(nn.Module):
            def __init__(self, linear):
                super().__init__()
                self.register_buffer("weight", linear.weight.detach().half())
                self.register_buffer("bias", linear.bias.detach().half())

            def forward(self, inputs):
                return functional.linear(inputs, self.weight.float(), self.bias.float())

        @quantizers.register("toy_half", no_kernel={"eager": "a toy says so"}, output_tolerance=1e-2)
        def quantize(model, calibration):
            "Store linear layers in 16 bits."
            changed = copy.deepcopy(model).eval()
            for name, module in list(changed.named_modules()):
                if isinstance(module, nn.Linear):
                    owner, _, attribute = name.rpartition(".")
                    setattr(changed.get_submodule(owner), attribute, HalfLinear(module))
            return changed
    """,
    "runtime_quantizer": """
        import shutil
        from autocut.stages.compile.onnxruntime import onnx_quantizers

        @onnx_quantizers.register("toy_half", version=7)
        def quantize(source, target, feeds):
            "Keep every number as it is."
            shutil.move(source, target)
    """,
    "mode": """
        import tempfile
        import zlib
        from pathlib import Path
        from autocut.stages.compile import modes
        from autocut.stages.graph import GRAPH_FILE, load_graph

        def load(folder, signature, threads):
            with tempfile.TemporaryDirectory() as scratch:
                (Path(scratch) / GRAPH_FILE).write_bytes(zlib.decompress((folder / "toy.zlib").read_bytes()))
                return load_graph(Path(scratch)).module(check_guards=False).forward

        def run_lines(call):
            unpacked = f"io.BytesIO(zlib.decompress(open({call.files[0]!r}, 'rb').read()))"
            return call.in_torch("import io, zlib", f"model = torch.export.load({unpacked}).module()  # played with a toy")

        @modes.register("toy_mode", load=load, files="toy.zlib", run_lines=run_lines, seconds=1)
        def compile_toy(job, folder):
            "Compress the graph."
            (folder / "toy.zlib").write_bytes(zlib.compress((job.graph / GRAPH_FILE).read_bytes()))
            return job.signature
    """,
    "kind": """
        from torch.nn import functional
        from autocut.task.kinds import Kind, class_fault, kinds, mean_score

        @kinds.register("toy_kind")
        def toy_kind():
            "Right is a class among the best two."
            return Kind(
                name="toy_rate",
                loss=lambda outputs, targets: functional.cross_entropy(outputs, targets),
                scores=lambda outputs, targets: (outputs.topk(2).indices == targets[:, None]).any(1).float(),
                summarize=mean_score, is_binary=True, output_fault=lambda outputs, targets: None, target_fault=class_fault,
                logits_shape=("n", "classes"),
            )
    """,
}
NAMES = {"toy_prune", "toy_pace", "toy_order", "toy_loss", "toy_half", "toy_mode"}
SPACE = """
    schema_version = 1
    description = "Toys alone."

    [objectives]
    accuracy = "maximize"
    size_bytes = "minimize"

    [axes."prune.method"]
    choices = ["none", "toy_prune"]
    [axes."prune.ratio"]
    choices = [0.3, 0.5]
    when."prune.method" = ["toy_prune"]
    [axes."train.epochs"]
    choices = [0, 1]
    [axes."curriculum.schedule"]
    choices = ["none", "toy_pace"]
    when."train.epochs" = [1]
    [axes."curriculum.order"]
    choices = ["easy_first", "toy_order"]
    when."curriculum.schedule" = ["toy_pace"]
    [axes."distill.loss"]
    choices = ["none", "toy_loss"]
    when."train.epochs" = [1]
    [axes."quantize.dtype"]
    choices = ["fp32", "toy_half"]
    [axes."compile.mode"]
    choices = ["eager", "onnxruntime", "toy_mode"]

    [[anchors]]
    "prune.method" = "toy_prune"
    "prune.ratio" = 0.5
    "train.epochs" = 1
    "curriculum.schedule" = "toy_pace"
    "curriculum.order" = "toy_order"
    "distill.loss" = "toy_loss"
    "quantize.dtype" = "toy_half"
    "compile.mode" = "toy_mode"

    [[anchors]]
    "quantize.dtype" = "toy_half"
    "compile.mode" = "onnxruntime"
"""
UNEXPLORED = {("prune.method", "structured_random"), ("prune.method", "heads_and_neurons_random")}
"""Registered methods that no shipped space explores, as (axis, name): controls, for studies."""
WORDS = {"none", "random", "step", "linear", "hint"}
"""Method names that are words of other things, too."""
NAMED_ELSEWHERE = {
    "recipe.py": "IDENTITY is the untouched model",
    "search/first_guesses.py": "a dtype is an instruction set of some processors, too",
    "precision.py": "a training multiplies in one, whatever its model is quantized to",
    "paired.py": "it knows how each metric that is made of sums is tested",
    "task/task.py": "the default of Task.kind is part of its signature",
    "tasks/digits.py": "a task names its kind",
    "tasks/tables.py": "it makes tasks, and each names its kind",
    "tasks/texts.py": "it makes tasks, and each names its kind",
}


@pytest.fixture
def toys(tmp_path):
    """Environment of a Python that has the plug-ins installed."""
    package = tmp_path / "installed" / "toy_plugins"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name, code in PLUG_INS.items():
        (package / f"{name}.py").write_text(textwrap.dedent(code))
    record = package.with_name("toy_plugins-1.0.dist-info")
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugins\nVersion: 1.0\n")
    entries = "".join(f"{name} = toy_plugins.{name}\n" for name in PLUG_INS)
    (record / "entry_points.txt").write_text(f"[autocut.methods]\n{entries}")
    path = os.pathsep.join([str(package.parent), str(Path(autocut.__file__).parents[1])])
    return {**os.environ, "PYTHONPATH": path}


def run(environment, *words):
    """Run `autocut` with these words."""
    command = [sys.executable, "-m", "autocut", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_plug_ins_are_listed_like_every_method(toys):
    """With what they say of themselves."""
    listed = json.loads(run(toys, "methods", "--json").stdout)

    assert {row["name"] for row in listed["methods"]} >= NAMES | {"toy_kind"}
    pairs = {(pair["dtype"], pair["mode"]): pair["reason"] for pair in listed["pairs"] if pair["device"] == "cpu"}
    assert pairs["toy_half", "toy_mode"] is pairs["toy_half", "onnxruntime"] is None
    assert pairs["toy_half", "eager"] == "a toy says so"


@pytest.mark.slow
def test_plug_ins_of_every_axis_search_and_end_in_a_verified_bundle(toys, small_task_file, tmp_path):
    """The space takes their names, and every process of the search knows them."""
    small_task_file.write_text(small_task_file.read_text().replace("pretrained=False", 'kind="toy_kind", pretrained=False'))
    space, study = tmp_path / "toys.toml", tmp_path / "study"
    space.write_text(textwrap.dedent(SPACE))

    done = run(toys, "search", small_task_file, "--budget", "100s", "--space", space, "--out", study, "--json")

    assert done.returncode == 0, done.stderr
    measured = [point.recipe for point in open_study(study).points()]
    assert {str(value) for recipe in measured for value in recipe.values()} >= NAMES
    assert any(recipe.lowering == ("toy_half", "onnxruntime") for recipe in measured)
    folders = [Path(point["bundle"]) for point in json.loads(done.stdout)["points"] if point["bundle"]]
    (bundle, *_) = [folder for folder in folders if (folder / "model" / "toy.zlib").exists()]
    assert run(toys, "verify", bundle).returncode == 0
    assert_readme_runs(bundle)


def assert_readme_runs(bundle):
    """It has the lines of the toy mode and names the package that the bundle needs; the lines need neither it nor autocut."""
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    assert "toy-plugins 1.0" in readme
    assert "toy_rate" in readme
    (lines,) = [block for block in readme.split("```python\n")[1:] if "played with a toy" in block]
    code = lines.partition("```")[0] + "assert output.shape == (1, 10)"
    subprocess.run([sys.executable, "-I", "-c", code], cwd=bundle, check=True, capture_output=True)


def test_only_methods_that_are_named_here_are_in_no_shipped_space():
    """A method that no space explores is easily forgotten."""
    known = known_methods()
    explored = {(axis.name, str(name)) for space in shipped_spaces() for axis in load_space(space, known) for name in axis.choices}

    assert {(axis, name) for axis in REGISTRIES for name in known[axis]} - explored == UNEXPLORED


def test_only_the_file_of_a_method_names_it():
    """A new method changes no other file. A registration may name others: a dtype the modes that have no kernel for it, say."""
    root = Path(autocut.__file__).parent
    methods = list(every_method())
    own = {(method.name, Path(sys.modules[method.function.__module__].__file__)) for method in methods}
    names = {method.name for method in methods} - WORDS
    found = [
        f"{path.relative_to(root)}: {name}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).as_posix() not in NAMED_ELSEWHERE
        for name in sorted(literals(ast.parse(path.read_text(encoding="utf-8"))) & names)
        if (name, path) not in own
    ]

    assert found == []
    assert IDENTITY["compile.mode"] in names


def literals(tree):
    """The string literals of a module, without docstrings and without what registrations hold."""
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register":
            passed |= {id(inner) for inner in ast.walk(node)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed
    }
