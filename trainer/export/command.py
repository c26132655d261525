"""`trainer export`: a classifier as one ONNX file that any runtime serves, checked against PyTorch before it is there.

Both formats take batches and lengths of any size (dynamic axes). `int8` keeps the weights of the matrix products and of
the embeddings as 8-bit integers and quantises activations as they come (onnxruntime's dynamic quantisation): its logits
differ, so it is judged by how often it predicts the same. A file appears when its check has passed, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.cli.command_line import CommandResult
from shared.errors import ModelError, OutputError, StoreError, UsageError
from trainer.export.config import ExportConfig
from trainer.export.sample_inputs import (
    EncodedRow,
    encode_texts,
    input_names,
    longest_input,
    pad_rows,
    random_rows,
    read_texts,
)

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""
MAX_BYTES = 2_000_000_000
"""An ONNX file is one protobuf message, which ends at 2 GiB."""
COMPARED_ROWS = 32

Arrays = Mapping[str, NDArray[np.int64]]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model as plain transformers loads it, in fp32 and eval mode, with its tokenizer."""

    folder: Path
    model: Any
    tokenizer: Any

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    @torch.no_grad()
    def logits(self, arrays: Arrays) -> Floats:
        """(rows, C) float32."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        logits: Floats = self.model(**tensors).logits.float().numpy()
        return logits


class _LogitsOnly(nn.Module):
    """The model with plain tensors in and out, in the order of `names`."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def run_command(config: ExportConfig) -> CommandResult:
    """Export and check; leaves the file and a JSON beside it. Raises ExpectedError."""
    output = Path(config.output)
    if output.is_dir() or output.suffix == ".json":
        raise UsageError(f"--output {output}: name a file such as {output.with_suffix('') / 'model.onnx'}")
    classifier = load_classifier_folder(config.model, "--model")
    longest = min(longest_input(classifier.model.config, classifier.tokenizer), config.max_length or 1 << 30)
    rows = _comparison_rows(config, classifier, longest)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as temporary:
            exact = Path(temporary) / "fp32.onnx"
            to_onnx(classifier, exact, config.opset, longest)
            facts = _facts(config, classifier, longest) | {
                "check": check_equal_logits(classifier, exact, longest, config)
            }
            finished = exact
            if config.format == "int8":
                finished = Path(temporary) / "int8.onnx"
                quantise(exact, finished)
                facts["bytes_fp32_onnx"] = exact.stat().st_size
                facts["agreement"] = compare_predictions(classifier, finished, rows) | {
                    "inputs": config.data or "random pieces"
                }
            content = finished.read_bytes()
            facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            report = Path(temporary) / "facts.json"
            report.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            finished.replace(output)
            report.replace(output.with_suffix(".json"))
    except OSError as error:
        raise StoreError(f"--output {output}: {error.strerror or error}") from error
    return CommandResult({"output": str(output)} | facts, _summary(output, facts))


def load_classifier_folder(path: str, option: str) -> Classifier:
    """Load a folder by plain transformers. Raises ModelError with what is wrong with it."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{option} {path} is no model folder: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder)
        if not any("SequenceClassification" in name for name in config.architectures or ()):
            raise ModelError(
                f"{option} {path} is {', '.join(config.architectures or ['an unnamed model'])}, no sequence "
                "classification model; `trainer teacher` and `trainer task` make one in OUTPUT/model"
            )
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{option} {path}: {str(error).splitlines()[0]}") from error
    return Classifier(folder, model.eval(), tokenizer)


def to_onnx(classifier: Classifier, path: Path, opset: int, longest: int) -> None:
    """Write the model with dynamic axes `batch` and `sequence` (up to `longest`). Raises ModelError."""
    from torch.export import Dim
    from torch.onnx import OnnxExporterError

    if sum(weight.numel() for weight in classifier.model.parameters()) * 4 > MAX_BYTES:
        raise ModelError(f"{classifier.folder} has more weights than one ONNX file holds (2 GB in fp32)")
    names = input_names(classifier.tokenizer)
    axes = {0: Dim("batch", min=1, max=65536), 1: Dim("sequence", min=2, max=longest)}
    example = pad_rows(random_rows(classifier.tokenizer, 2, min(8, longest), min(8, longest), 0), classifier.tokenizer)
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
                raise ModelError(f"{classifier.folder} cannot be exported to ONNX: the exporter gave nothing")
            program.save(str(path), external_data=False)
    except OnnxExporterError as error:
        raise ModelError(f"{classifier.folder} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error


def check_equal_logits(classifier: Classifier, path: Path, longest: int, config: ExportConfig) -> dict[str, Any]:
    """Run the file and PyTorch on random inputs of several shapes, padding among them. Raises OutputError."""
    session = open_session(path)
    shapes = [(1, 2), (1, longest), (3, max(longest // 2, 2)), (COMPARED_ROWS, min(longest, 32))]
    worst, scale = 0.0, 1.0
    for number, (count, length) in enumerate(shapes):
        shortest = max(length // 2, 2) if count > 1 else length
        rows = random_rows(classifier.tokenizer, count, shortest, length, config.seed + number)
        arrays = pad_rows(rows, classifier.tokenizer)
        wanted = classifier.logits(arrays)
        found = session_logits(session, arrays)
        if found.shape != wanted.shape:
            raise OutputError(
                f"the ONNX file answers {found.shape} where PyTorch answers {wanted.shape}; nothing was kept"
            )
        worst, scale = max(worst, float(np.abs(found - wanted).max())), max(scale, float(np.abs(wanted).max()))
    if not worst <= TOLERANCE * scale:
        raise OutputError(
            f"the ONNX logits differ from PyTorch's by {worst:.2g} (allowed {TOLERANCE * scale:.2g}); nothing was "
            "kept. Try another --opset"
        )
    return {"shapes": shapes, "max_logit_difference": worst, "allowed": TOLERANCE * scale, "largest_logit": scale}


def quantise(exact: Path, path: Path) -> None:
    """Dynamic quantisation: int8 weights (one scale per output channel), uint8 activations scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_exporter():
        quantize_dynamic(exact, path, per_channel=True, weight_type=QuantType.QInt8)


def compare_predictions(classifier: Classifier, path: Path, rows: Sequence[EncodedRow]) -> dict[str, Any]:
    """How often the file predicts the class that PyTorch does; for regression how far the numbers are apart."""
    session = open_session(path)
    wanted: list[Floats] = []
    found: list[Floats] = []
    for start in range(0, len(rows), COMPARED_ROWS):
        arrays = pad_rows(rows[start : start + COMPARED_ROWS], classifier.tokenizer)
        wanted.append(classifier.logits(arrays))
        found.append(session_logits(session, arrays))
    theirs, ours = np.concatenate(wanted), np.concatenate(found)
    difference = np.abs(theirs - ours)
    facts: dict[str, Any] = {
        "rows": len(rows),
        "max_logit_difference": float(difference.max()),
        "mean_logit_difference": float(difference.mean()),
    }
    if theirs.shape[1] > 1:
        facts["same_class"] = float((theirs.argmax(1) == ours.argmax(1)).mean())
    return facts


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU. Raises OutputError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from Exception only
        raise OutputError(f"onnxruntime refuses the exported model: {str(error).splitlines()[0]}") from error


def session_logits(session: Any, arrays: Arrays) -> Floats:
    """(rows, C) float32 of the inputs that the file declares."""
    names = [one.name for one in session.get_inputs()]
    logits: Floats = session.run(["logits"], {name: arrays[name] for name in names})[0]
    return logits


def _comparison_rows(config: ExportConfig, classifier: Classifier, longest: int) -> list[EncodedRow]:
    if config.data is not None:
        return encode_texts(classifier.tokenizer, read_texts(config, config.rows), longest)
    return random_rows(classifier.tokenizer, config.rows, min(8, longest), min(64, longest), config.seed)


def _facts(config: ExportConfig, classifier: Classifier, longest: int) -> dict[str, Any]:
    settings = classifier.model.config
    return {
        "model": str(classifier.folder),
        "format": config.format,
        "opset": config.opset,
        "inputs": {name: ["batch", "sequence"] for name in input_names(classifier.tokenizer)},
        "outputs": {"logits": ["batch", settings.num_labels]},
        "max_length": longest,
        "labels": {str(index): name for index, name in settings.id2label.items()},
        "parameters": sum(weight.numel() for weight in classifier.model.parameters()),
        "bytes_pytorch": classifier.weight_bytes,
        "versions": {name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
    }


def _summary(output: Path, facts: Mapping[str, Any]) -> str:
    check, agreement = facts["check"], facts.get("agreement")
    before = f"{facts['bytes_pytorch'] / 1e6:.1f} MB in PyTorch"
    size = f"{output}: {facts['bytes'] / 1e6:.1f} MB ({before}), opset {facts['opset']}"
    if agreement is None:
        return f"{size}\n  logits equal PyTorch's: largest difference {check['max_logit_difference']:.1e}"
    same = agreement.get("same_class")
    judged = f"same class as fp32 on {same:.2%} of" if same is not None else "compared with fp32 on"
    return (
        f"{size}\n  {judged} {agreement['rows']} inputs ({agreement['inputs']}); logits differ by "
        f"{agreement['mean_logit_difference']:.3f} on average, {agreement['max_logit_difference']:.3f} at most"
    )


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of packages and names that do not matter here; its errors are raised, not logged."""
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
