"""The training command line; each command imports its implementation only when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from shared.cli.command_line import Command
from shared.cli.command_line import main as run_command_line

COMMANDS = (
    Command(
        "distill",
        "Turn a file of labelled text into a small model ready to deploy: all the steps below in one command.",
        "trainer.pipeline.config:DistillConfig",
        "trainer.pipeline.command:run_command",
    ),
    Command(
        "mlm",
        "Train a masked LM from an encoder, or adapt one to a domain.",
        "trainer.mlm.config:MlmConfig",
        "trainer.mlm.train:run_command",
    ),
    Command("teacher", "Fine-tune a teacher on a task.", "trainer.config:TeacherConfig", "trainer.teacher:run_command"),
    Command(
        "general",
        "General distillation: a student learns from an encoder on plain text.",
        "trainer.config:GeneralConfig",
        "trainer.general:run_command",
    ),
    Command(
        "annotate",
        "Store the teacher's logits alongside the shards.",
        "trainer.config:AnnotateConfig",
        "trainer.annotate:run_command",
    ),
    Command(
        "task",
        "Task distillation: a student learns from a fine-tuned teacher on augmented shards.",
        "trainer.config:TaskConfig",
        "trainer.task:run_command",
    ),
    Command(
        "evaluate",
        "Score a model on a labelled file.",
        "trainer.config:EvaluateConfig",
        "trainer.evaluation:run_command",
    ),
    Command(
        "predict",
        "Predict labels and probabilities for the rows of a table.",
        "trainer.predict.config:PredictConfig",
        "trainer.predict.command:run_command",
    ),
    Command(
        "export",
        "Export a classifier as one ONNX file, fp32 or int8, checked against PyTorch.",
        "trainer.export.config:ExportConfig",
        "trainer.export.command:run_command",
    ),
    Command(
        "report",
        "Compare students with their teachers on one page: size, speed and scores.",
        "trainer.report.config:ReportConfig",
        "trainer.report.command:run_command",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m trainer`; returns the exit code."""
    return run_command_line("trainer", "TinyBERT distillation that streams augmented shards.", COMMANDS, argv)
