"""The students of a distillation, one per seed: where they are, and which one is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shared.errors import OutputError
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.place import Place
from trainer.result import RunResult, parse_result
from trainer.run_folder import RESULT

FIRST = "student"


def student_seeds(config: DistillConfig) -> Mapping[str, int]:
    """Step and folder name of each student -> its seed, in order."""
    seeds = range(config.seed, config.seed + config.seeds)
    return {FIRST if seed == config.seed else f"{FIRST}-seed-{seed}": seed for seed in seeds}


def student_results(config: DistillConfig, place: Place) -> Mapping[str, RunResult]:
    """Folder name -> result of each student. Raises OutputError when one has no test scores, ManifestError."""
    found = {}
    for name in student_seeds(config):
        recorded = f"{name}/{RESULT}"
        store = place.store
        result = parse_result(store.read(recorded), place.path(recorded)) if store.exists(recorded) else None
        if result is None or result.test is None:
            raise OutputError(f"{place.path(name)} has no result with test scores; remove it and run the command again")
        found[name] = result
    return found


def best_student(results: Mapping[str, RunResult]) -> str:
    """The folder name with the highest validation score, the first of ties. Test scores are not considered."""
    scores = {name: -math.inf if one.score is None else one.score for name, one in results.items()}
    return max(scores, key=scores.__getitem__)
