"""`trainer export`: a classifier as one ONNX file that any runtime serves, checked against PyTorch before it appears.

Both formats take batches and lengths of any size (dynamic axes). `int8` keeps the weights of the matrix products and of
the embeddings as 8-bit integers and quantises activations at run time (onnxruntime's dynamic quantisation). Its logits
differ, so it is checked by how often it predicts the same class. A file appears only if its check has passed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from shared.cli.command_line import CommandResult
from shared.errors import UsageError
from shared.model_folder import MULTI_LABEL
from shared.storage.whole_file import check_target, whole_files
from trainer.export.check import Agreement, LogitCheck, check_equal_logits, compare_predictions
from trainer.export.config import ExportConfig
from trainer.export.onnx_file import quantise, write_onnx
from trainer.export.sample_inputs import EncodedRow, encode_texts, input_names, random_rows, read_texts
from trainer.export.saved_classifier import SavedClassifier, load_saved_classifier
from trainer.positions import longest_input


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """Contents of the JSON file next to the model. The last two exist only for int8.

    problem_type: what a logit means, as in the model's config.json.
    """

    model: str
    format: str
    opset: int
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str | int]]
    max_length: int
    labels: Mapping[str, str]
    parameters: int
    bytes_pytorch: int
    versions: Mapping[str, str]
    check: LogitCheck
    bytes: int
    sha256: str
    problem_type: str | None = None
    bytes_fp32_onnx: int | None = None
    agreement: Agreement | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; unset facts are left out."""
        return asdict(self, dict_factory=lambda items: {name: value for name, value in items if value is not None})


def run_command(config: ExportConfig) -> CommandResult:
    """Export and check. Leaves the file and, next to it, a JSON file with its facts. Raises ExpectedError."""
    output = config.output
    suffix = PurePosixPath(output).suffix
    if suffix == ".json":
        raise UsageError(f"--output {output}: name a file such as {output.removesuffix(suffix)}/model.onnx")
    check_target(output, "--output")
    classifier = load_saved_classifier(config.model, "--model")
    longest = min(longest_input(classifier.model, classifier.tokenizer), config.max_length or 1 << 30)
    rows = _comparison_rows(config, classifier, longest)
    with whole_files(f"{output.removesuffix(suffix)}.json", output) as (report, finished):
        with tempfile.TemporaryDirectory(prefix=".export-", dir=finished.parent) as temporary:
            facts = _export(config, classifier, longest, rows, Path(temporary))
            (Path(temporary) / "model.onnx").replace(finished)
        report.write_text(json.dumps(facts.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return CommandResult({"output": output} | facts.as_dict(), _summary(output, facts))


def _export(
    config: ExportConfig, classifier: SavedClassifier, longest: int, rows: Sequence[EncodedRow], folder: Path
) -> ExportFacts:
    """Write `model.onnx` into `folder` and check it."""
    exact, finished = folder / "fp32.onnx", folder / "model.onnx"
    write_onnx(classifier, exact, config.opset, longest)
    check = check_equal_logits(classifier, exact, longest, config.seed)
    bytes_exact = exact.stat().st_size
    agreement = None
    if config.format == "int8":
        quantise(exact, finished)
        agreement = compare_predictions(classifier, finished, rows, config.data or "random tokens")
    else:
        exact.rename(finished)
    content = finished.read_bytes()
    settings = classifier.model.config
    return ExportFacts(
        model=str(classifier.folder),
        format=config.format,
        opset=config.opset,
        inputs={name: ["batch", "sequence"] for name in input_names(classifier.tokenizer)},
        outputs={"logits": ["batch", settings.num_labels]},
        max_length=longest,
        labels={str(index): name for index, name in settings.id2label.items()},
        problem_type=settings.problem_type,
        parameters=classifier.num_parameters,
        bytes_pytorch=classifier.weight_bytes,
        versions={name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
        check=check,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        bytes_fp32_onnx=bytes_exact if config.format == "int8" else None,
        agreement=agreement,
    )


def _comparison_rows(config: ExportConfig, classifier: SavedClassifier, longest: int) -> list[EncodedRow]:
    if config.data is not None:
        return encode_texts(classifier.tokenizer, read_texts(config, config.rows), longest)
    return random_rows(classifier.tokenizer, config.rows, min(8, longest), min(64, longest), config.seed)


def _summary(output: str, facts: ExportFacts) -> str:
    size = f"{output}: {facts.bytes / 1e6:.1f} MB ({facts.bytes_pytorch / 1e6:.1f} MB in PyTorch), opset {facts.opset}"
    agreement = facts.agreement
    if agreement is None:
        return f"{size}\n  logits match PyTorch's (largest difference: {facts.check.max_logit_difference:.1e})"
    same = agreement.same_class
    judged = (
        f"same {'labels' if facts.problem_type == MULTI_LABEL else 'class'} as fp32 on {same:.2%} of"
        if same is not None
        else "compared with fp32 on"
    )
    return (
        f"{size}\n  {judged} {agreement.rows} inputs ({agreement.inputs}); logits differ by "
        f"{agreement.mean_logit_difference:.3f} on average, {agreement.max_logit_difference:.3f} at most"
    )
