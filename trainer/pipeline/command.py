"""`trainer distill`: check the data, plan the steps, run them, assemble the student.

Every step is one of the other commands, run in its own process with its own folder under OUTPUT. The choices are saved
in OUTPUT/plan.json, so the same command resumes after any interruption and ends with the same student.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

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
from trainer.pipeline.place import Place, place_of
from trainer.pipeline.preparation import (
    Parts,
    Prepared,
    describe_parts,
    read_prepared,
    split_rows,
    with_mined,
    write_parts,
)
from trainer.pipeline.running import Runner, check_platform, locked
from trainer.pipeline.steps import closing_steps, groups_of, plan_steps, training_steps
from trainer.pipeline.students import best_student, student_results

PLAN = "plan.json"
MADE = ("model", "onnx", "report.html", "README.md")


def run_command(config: DistillConfig) -> CommandResult:
    """Distil, or resume. Raises ExpectedError; after a signal KeyboardInterrupt, once all steps have ended."""
    check_platform()
    place = place_of(config.output)
    place.check_is_free()
    if config.dry_run:
        choices, prepared = _plan(config, place, writes=False)
        return CommandResult({"choices": asdict(choices), "data": asdict(prepared)})
    with locked(place.folder) as lock:
        choices, prepared = _known_plan(config, place) or _plan(config, place, writes=True)
        runner = Runner(place=place, lock=lock, say=_say)
        for steps in groups_of(training_steps(config, place, prepared, choices)):
            runner.run(steps)
        results = student_results(config, place)
        chosen = best_student(results)
        for steps in groups_of(closing_steps(config, place, prepared, choices, chosen)):
            runner.run(steps)
        outcome = finish(config, place, prepared, choices, results, chosen)
        place.tidy()
    entries = {name.rstrip("/") for name in place.store.entries()}
    made = [place.path(name) for name in MADE if name in entries]
    text = "\n".join([*outcome.table(), "", "   ".join(made)])
    return CommandResult(asdict(outcome), text)


def _known_plan(config: DistillConfig, place: Place) -> tuple[Choices, Prepared] | None:
    """The plan of an earlier call. Raises ManifestError if it was for a different distillation."""
    if not place.store.exists(CONFIG):
        return None
    place.open_run(config.identity())
    prepared = read_prepared(config, place)
    if prepared is None or not place.store.exists(PLAN):
        return None
    choices = _read_choices(place)
    _say(f"resuming {place.output}")
    return choices, prepared


def _read_choices(place: Place) -> Choices:
    try:
        choices: Choices = TypeAdapter(Choices).validate_python(json.loads(place.store.read(PLAN)))
    except ValueError as error:
        problem = str(error).splitlines()[0]
        raise ManifestError(f"{place.path(PLAN)} is damaged ({problem}); remove {place.output}") from error
    return choices


def _plan(config: DistillConfig, place: Place, *, writes: bool) -> tuple[Choices, Prepared]:
    """Check the data, make the choices and show them. Nothing is written until everything is known to fit."""
    inspection = inspect(config)
    for line in inspection.description(config.data):
        _say(line)
    if config.mined_pairs and not inspection.has_pairs:
        raise UsageError(f"--mined-pairs {config.mined_pairs} needs text pairs, but {config.data} has single texts")
    if config.n_a_per_label not in ((), BALANCED):
        LabelQuotas.parse(config.n_a_per_label).check_known(inspection.counts, config.data)
    fit = check_fit(config, inspection)
    parts = split_rows(config, inspection, fit.classes)
    for line in (*fit.notes, *_part_lines(parts)):
        _say(line)
    task = TaskSize(
        num_train=len(parts.train),
        num_dev=len(parts.dev),
        num_test=len(parts.test),
        has_pairs=inspection.has_pairs,
        max_length=fit.max_length,
        student=fit.student,
        answers_only=fit.answers_only,
        num_unlabelled=len(parts.unlabelled),
        label_rows=inspection.counts,
    )
    rates = None
    if config.estimate or config.budget:
        from trainer.pipeline.calibration import calibrate

        _say("benchmarking this machine for a few seconds ...")
        rates = calibrate(config, inspection, fit.max_length, fit.student)
    if config.budget and rates is not None:
        choices = fitting_choices(config, rates, task)
    else:
        choices = default_choices(config, task)
    minutes = estimate(config, choices, rates, task) if rates is not None else {}
    parts = with_mined(config, parts, choices.mined)
    if writes:
        choices, prepared = _record(config, place, inspection, parts, choices)
    else:
        prepared = describe_parts(config, place, inspection, parts)
    _announce(config, place, prepared, choices, minutes)
    return choices, prepared


def _record(
    config: DistillConfig, place: Place, inspection: Inspection, parts: Parts, choices: Choices
) -> tuple[Choices, Prepared]:
    """Store the plan, and return the stored one: if several machines do this at once, the first one wins."""
    place.open_run(config.identity())
    prepared = write_parts(config, place, inspection, parts)
    place.store.put_if_absent(PLAN, json.dumps(asdict(choices), indent=1).encode())
    return _read_choices(place), prepared


def _announce(
    config: DistillConfig, place: Place, prepared: Prepared, choices: Choices, minutes: Mapping[str, float]
) -> None:
    if prepared.num_mined:
        _say(f"{prepared.num_mined:,} new pairs mined from the training texts, for the teacher to label")
    for line in choice_lines(config, choices, prepared.num_train, prepared.num_unlabelled):
        _say(line)
    _say("the steps, each of which you can also run by hand:")
    for step in plan_steps(config, place, prepared, choices):
        _say(f"  {step.line()}")
    if minutes:
        listed = ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
        _say(f"estimated minutes: {listed}; total {sum(minutes.values()):.0f}")


def _part_lines(parts: Parts) -> list[str]:
    lines = [*parts.notes]
    lines += [f"{len(parts.train):,} training, {len(parts.dev):,} validation and {len(parts.test):,} test rows"]
    if parts.leaked:
        lines.append(f"{parts.leaked:,} training rows are dropped, because --dev or --test has the same text")
    if parts.unlabelled or parts.repeated:
        lines.append(
            f"{len(parts.unlabelled):,} unlabelled rows for the teacher to label; {parts.repeated:,} more are dropped, "
            "because a labelled row or another of them has the same text"
        )
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
