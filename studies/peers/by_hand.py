"""What an engineer gets without autocut: one model under each runtime, set up as the runtime's own documentation says.

Nothing of autocut's lowering is used here. A peer that cannot be set up for a model is left out, with the reason.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocut.task.batches import Inputs, call, tensors

Predict = Callable[[Inputs], Tensor]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Setup:
    """What a peer starts from. `calibration` are batches of training inputs; the first is the example that an exporter traces."""

    model: nn.Module
    calibration: Sequence[Inputs]
    threads: int
    folder: Path

    def onnx_file(self) -> Path:
        """Export the model to ONNX with a free batch size, once."""
        file = self.folder / "model.onnx"
        if not file.exists():
            example = self.calibration[0]
            named = tensors(example)
            batch = torch.export.Dim("batch", max=4096)
            as_keywords = isinstance(example, Mapping)
            arguments: Any = () if as_keywords else tuple(named.values())
            shapes: Any = {name: {0: batch} for name in named} if as_keywords else tuple({0: batch} for _ in named)
            with _silent():
                torch.onnx.export(
                    self.model, arguments, file, kwargs=dict(named) if as_keywords else None, input_names=list(named),
                    dynamic_shapes=shapes, dynamo=True, optimize=True, external_data=False,
                )  # fmt: skip
        return file

    def feeds(self) -> list[Arrays]:
        """Return the calibration batches as arrays by name."""
        return [_arrays(inputs) for inputs in self.calibration]


def eager(setup: Setup) -> Predict:
    """Return the module itself."""
    return _inference(lambda inputs: call(setup.model, inputs))


def inductor(setup: Setup) -> Predict:
    """`torch.compile` with its defaults; it compiles again for each batch size."""
    compiled = torch.compile(setup.model)
    return _inference(lambda inputs: call(compiled, inputs))


def inductor_bf16(setup: Setup) -> Predict:
    """`torch.compile` under bf16 autocast."""
    compiled = torch.compile(setup.model)

    def run(inputs: Inputs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return call(compiled, inputs).float()

    return _inference(run)


def onnxruntime(setup: Setup) -> Predict:
    """ONNX Runtime, float32."""
    return _session(setup.onnx_file(), setup.threads)


def onnxruntime_dynamic(setup: Setup) -> Predict:
    """ONNX Runtime, `quantize_dynamic` with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    file = setup.folder / "dynamic.onnx"
    with _silent():
        quantize_dynamic(_preprocessed(setup), file)
    return _session(file, setup.threads)


def onnxruntime_static(setup: Setup) -> Predict:
    """ONNX Runtime, `quantize_static` with its defaults and weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(setup.feeds())

        def get_next(self) -> Arrays | None:
            return next(self._left, None)

    file = setup.folder / "static.onnx"
    with _silent():
        quantize_static(_preprocessed(setup), file, Reader(), per_channel=True)
    return _session(file, setup.threads)


def openvino(setup: Setup) -> Predict:
    """OpenVINO with its defaults. It computes in bf16 by itself where the processor has units for it."""
    import openvino as ov

    return _compiled(ov.Core().read_model(setup.onnx_file()), setup)


def openvino_bf16(setup: Setup) -> Predict:
    """OpenVINO, asked for bf16."""
    import openvino as ov

    return _compiled(ov.Core().read_model(setup.onnx_file()), setup, INFERENCE_PRECISION_HINT="bf16")


def openvino_nncf(setup: Setup) -> Predict:
    """OpenVINO, int8 by `nncf.quantize`, with the scheme for transformers where there is attention."""
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    import openvino as ov

    model = ov.Core().read_model(setup.onnx_file())
    attends = any(node.get_type_name() in ("Softmax", "ScaledDotProductAttention") for node in model.get_ops())
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if attends else {}
    with _silent():
        quantized = nncf.quantize(model, nncf.Dataset(setup.feeds()), subset_size=len(setup.calibration), **kind)
    return _compiled(quantized, setup)


PEERS: Mapping[str, Callable[[Setup], Predict]] = {
    "eager": eager,
    "Inductor": inductor,
    "Inductor, bf16 autocast": inductor_bf16,
    "ONNX Runtime": onnxruntime,
    "ONNX Runtime, dynamic int8": onnxruntime_dynamic,
    "ONNX Runtime, static int8": onnxruntime_static,
    "OpenVINO": openvino,
    "OpenVINO, bf16": openvino_bf16,
    "OpenVINO + NNCF, int8": openvino_nncf,
}


def _inference(predict: Predict) -> Predict:
    @torch.inference_mode()
    def run(inputs: Inputs) -> Tensor:
        return predict(inputs)

    return run


def _preprocessed(setup: Setup) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    file = setup.folder / "preprocessed.onnx"
    if not file.exists():
        with _silent():
            quant_pre_process(setup.onnx_file(), file, skip_symbolic_shape=True)
    return file


def _session(file: Path, threads: int) -> Predict:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    used = {one.name for one in session.get_inputs()}
    return lambda inputs: torch.from_numpy(
        session.run(None, {name: array for name, array in _arrays(inputs).items() if name in used})[0]
    )


def _compiled(model: Any, setup: Setup, **properties: str) -> Predict:
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": setup.threads, "NUM_STREAMS": 1, **properties})
    request = compiled.create_infer_request()
    return lambda inputs: torch.from_numpy(request.infer(_arrays(inputs), share_inputs=True)[0].copy())


def _arrays(inputs: Inputs) -> Arrays:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors(inputs).items()}


@contextlib.contextmanager
def _silent() -> Any:
    """Keep progress bars and advice of the libraries off the screen."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
