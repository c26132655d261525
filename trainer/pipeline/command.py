"""`trainer distill`: judge the data, plan the steps, run them, hand the student on.

Every step is one of the other commands, in a process of its own, with its own folder under OUTPUT. What was chosen is
kept in OUTPUT/plan.json, so the same command continues after any interruption, and ends with the same student.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from shared.cli.command_line import CommandResult
from shared.errors import ManifestError, UsageError
from shared.label_quotas import LabelQuotas
from shared.model_folder import CONFIG
from trainer.pipeline.choices import Choices, TaskSize, choice_lines, default_choices, estimate, fitting_choices
from trainer.pipeline.config import BALANCED, DistillConfig
from trainer.pipeline.fit import check_fit
from trainer.pipeline.inspection import Inspection, inspect
from trainer.pipeline.outcome import finish
from trainer.pipeline.preparation import Parts, Prepared, describe_parts, read_prepared, split_rows, write_parts
from trainer.pipeline.running import Runner, check_platform, locked
from trainer.pipeline.steps import groups_of, plan_steps
from trainer.run_folder import check_is_local, open_run, write_atomically

PLAN = "plan.json"
COMMAND = "distill"
MADE = ("model", "onnx", "report.html", "README.md")


def run_command(config: DistillConfig) -> CommandResult:
    """Distil, or continue. Raises ExpectedError; KeyboardInterrupt after a signal, when all steps have ended."""
    check_platform()
    check_is_local(config.output, "--output")
    folder = Path(config.output)
    _check_output(folder)
    if config.dry_run:
        choices, prepared = _plan(config, writes=False)
        return CommandResult({"choices": asdict(choices), "data": asdict(prepared)})
    with locked(folder) as lock:
        choices, prepared = _known_plan(config) or _plan(config, writes=True)
        runner = Runner(folder=folder, lock=lock, say=_say)
        for steps in groups_of(plan_steps(config, prepared, choices)):
            runner.run(steps)
        outcome = finish(config, prepared, choices)
    made = [f"{folder}/{name}" for name in MADE if (folder / name).exists()]
    text = "\n".join([*outcome.table(), "", "   ".join(made)])
    return CommandResult(asdict(outcome), text)


def _check_output(folder: Path) -> None:
    """Raises UsageError for a folder with anything else in it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: name a folder")
    if (folder / CONFIG).is_file():
        return
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if others:
        raise UsageError(f"--output {folder} is not empty and holds no run of `trainer distill`: name another folder")


def _known_plan(config: DistillConfig) -> tuple[Choices, Prepared] | None:
    """What an earlier call chose. Raises ManifestError when it was another distillation."""
    folder = Path(config.output)
    if not (folder / CONFIG).is_file():
        return None
    open_run(config.output, COMMAND, config.identity())
    prepared, path = read_prepared(config), folder / PLAN
    if prepared is None or not path.is_file():
        return None
    try:
        choices: Choices = TypeAdapter(Choices).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ManifestError(f"{path} is damaged ({str(error).splitlines()[0]}); remove {folder}") from error
    _say(f"continuing {folder}")
    return choices, prepared


def _plan(config: DistillConfig, *, writes: bool) -> tuple[Choices, Prepared]:
    """Judge the data, choose, tell the user. Nothing is written before everything is known to fit."""
    inspection = inspect(config)
    for line in inspection.description(config.data):
        _say(line)
    if config.n_a_per_label not in ((), BALANCED):
        LabelQuotas.parse(config.n_a_per_label).check_known(inspection.counts, config.data)
    fit = check_fit(config, inspection)
    parts = split_rows(config, inspection)
    for line in (*fit.notes, *_part_lines(parts)):
        _say(line)
    task = TaskSize(
        num_train=len(parts.train),
        num_dev=len(parts.dev),
        num_test=len(parts.test),
        has_pairs=inspection.has_pairs,
        max_length=fit.max_length,
        student=fit.student,
        annotates=fit.annotates,
        num_unlabelled=len(parts.unlabelled),
        label_rows=inspection.counts,
    )
    rates = None
    if config.estimate or config.budget:
        from trainer.pipeline.calibration import calibrate

        _say("measuring this machine for some seconds ...")
        rates = calibrate(config, inspection, fit.max_length, fit.student)
    if config.budget and rates is not None:
        choices = fitting_choices(config, rates, task)
    else:
        choices = default_choices(config, task)
    minutes = estimate(config, choices, rates, task) if rates is not None else {}
    prepared = _record(config, inspection, parts, choices) if writes else describe_parts(config, inspection, parts)
    _announce(config, prepared, choices, minutes)
    return choices, prepared


def _record(config: DistillConfig, inspection: Inspection, parts: Parts, choices: Choices) -> Prepared:
    folder = open_run(config.output, COMMAND, config.identity())
    prepared = write_parts(config, inspection, parts)
    content = json.dumps(asdict(choices), indent=1).encode()
    write_atomically(folder / PLAN, lambda file: file.write(content))
    return prepared


def _announce(config: DistillConfig, prepared: Prepared, choices: Choices, minutes: Mapping[str, float]) -> None:
    for line in choice_lines(config, choices, prepared.num_train, prepared.num_unlabelled):
        _say(line)
    _say("the steps, each of which can be run alone:")
    for step in plan_steps(config, prepared, choices):
        _say(f"  {step.line()}")
    if minutes:
        listed = ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
        _say(f"estimated minutes: {listed}; together {sum(minutes.values()):.0f}")


def _part_lines(parts: Parts) -> list[str]:
    lines = [f"{len(parts.train):,} rows to train on, {len(parts.dev):,} to choose on, {len(parts.test):,} to test on"]
    if parts.leaked:
        lines.append(f"{parts.leaked:,} training rows are left out: --dev or --test has the same text")
    if parts.unlabelled or parts.repeated:
        lines.append(
            f"{len(parts.unlabelled):,} rows without a label, which the teacher answers; {parts.repeated:,} more are "
            "left out, because a labelled row or one of their own has the same text"
        )
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
