"""Writing, quantising and running an ONNX file."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import ModelError, OutputError
from trainer.export.sample_inputs import input_names, pad_rows, random_rows
from trainer.export.saved_classifier import Arrays, Floats, SavedClassifier

MAX_BYTES = 2_000_000_000
"""An ONNX file is a single protobuf message, and protobuf limits messages to 2 GiB."""
EXAMPLE_ROWS, EXAMPLE_LENGTH = 2, 8


class _LogitsOnly(nn.Module):
    """The model with plain tensors in and out, in the order of `names`."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def write_onnx(classifier: SavedClassifier, path: Path, opset: int, longest: int) -> None:
    """Write the model with dynamic axes `batch` and `sequence` (up to `longest` tokens). Raises ModelError."""
    from torch.export import Dim
    from torch.onnx import OnnxExporterError

    if classifier.num_parameters * 4 > MAX_BYTES:
        raise ModelError(f"{classifier.folder} is too large for one ONNX file (limit: 2 GB of fp32 weights)")
    names = input_names(classifier.tokenizer)
    axes = {0: Dim("batch", min=1, max=65536), 1: Dim("sequence", min=2, max=longest)}
    length = min(EXAMPLE_LENGTH, longest)
    example = pad_rows(random_rows(classifier.tokenizer, EXAMPLE_ROWS, length, length, 0), classifier.tokenizer)
    arguments = tuple(torch.from_numpy(example[name]) for name in names)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                _LogitsOnly(classifier.model, names).eval(),
                arguments,
                dynamo=True,
                verbose=False,
                input_names=list(names),
                output_names=["logits"],
                dynamic_shapes=(tuple(axes for _ in names),),
                opset_version=opset,
            )
            if program is None:
                raise ModelError(f"{classifier.folder} cannot be exported to ONNX: the exporter returned nothing")
            program.save(str(path), external_data=False)
    except OnnxExporterError as error:
        raise ModelError(f"{classifier.folder} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error


def quantise(exact: Path, path: Path) -> None:
    """Dynamic quantisation: int8 weights (one scale per output channel), uint8 activations scaled at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_exporter():
        quantize_dynamic(exact, path, per_channel=True, weight_type=QuantType.QInt8)


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU. Raises OutputError for a file that it cannot load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from Exception only
        raise OutputError(f"onnxruntime cannot load {path}: {str(error).splitlines()[0]}") from error


def session_logits(session: Any, arrays: Arrays) -> Floats:
    """(rows, classes) float32, from the inputs that the file declares."""
    names = [one.name for one in session.get_inputs()]
    logits: Floats = session.run(["logits"], {name: arrays[name] for name in names})[0]
    return logits


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's irrelevant warnings on packages and names; its errors are raised, not logged."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
