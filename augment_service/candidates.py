"""The `candidates` command: reads JSONL of texts, writes one JSON line per text with its words and candidate sets."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augment_service.config import CandidatesConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.proposer import TextProposals
from shared.compute.memory import keep_freed_memory
from shared.errors import InputError

NUM_RANKED = 30
BATCH_TEXTS = 64


def run_command(config: CandidatesConfig) -> None:
    """Answer every line of the input on stdout, in order. Raises InputError naming the bad line."""
    lines = _read_texts(config.input)
    first = next(lines, None)
    if first is None:
        raise InputError(f"--input {config.input} has no lines; it needs one JSON object per line")
    keep_freed_memory()
    masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.threads)
    engine = AugmentEngine(
        masked_lm, GloveVectors.load(config.glove, config.glove_limit), config.params(), config.batch_tokens
    )
    batch = [first]
    for one in lines:
        if len(batch) >= BATCH_TEXTS:
            _answer(engine, batch)
            batch = []
        batch.append(one)
    _answer(engine, batch)


def candidate_line(engine: AugmentEngine, identifier: Any, field: str, found: TextProposals) -> dict[str, Any]:
    """One line of output: words, their tokens, and per replaceable word its candidates, best first."""
    to_tokens = engine.masked_lm.tokenizer.convert_ids_to_tokens
    sites = []
    for one in found.proposals:
        word = found.words[one.word_index].text
        site: dict[str, Any] = {"i": one.word_index, "word": word, "source": one.origin}
        if one.position is not None:
            site["position"] = one.position
        ranked = [[entry, round(score, 6)] for entry, score in one.ranked]
        site |= {"candidates": list(one.candidates) or [word], "ranked": ranked, "fallback": not one.candidates}
        sites.append(site)
    return {
        "id": identifier,
        "field": field,
        "text": found.text,
        "context": engine.params.context,
        "words": [word.text for word in found.words],
        "pieces": [to_tokens(list(word.piece_ids)) for word in found.words],
        "sites": sites,
    }


def _answer(engine: AugmentEngine, batch: list[tuple[Any, str, str]]) -> None:
    found = engine.propose([text for _, _, text in batch], NUM_RANKED)
    for (identifier, field, _), proposals in zip(batch, found, strict=True):
        print(json.dumps(candidate_line(engine, identifier, field, proposals), ensure_ascii=False), flush=True)


def _read_texts(path: str) -> Iterator[tuple[Any, str, str]]:
    try:
        opened = contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--input {path}: {error.strerror}") from error
    with opened as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                loaded = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not valid JSON: {error}") from error
            fields = [name for name in ("text", "text_a", "text_b") if isinstance(loaded, dict) and name in loaded]
            if not fields:
                raise InputError(f'{where} needs {{"id", "text"}} or {{"id", "text_a", "text_b"}}')
            for name in fields:
                if not isinstance(loaded[name], str):
                    raise InputError(f"{where}: {name} must be a string")
                if any("\ud800" <= letter <= "\udfff" for letter in loaded[name]):
                    raise InputError(f"{where}: {name} contains a lone surrogate, which is not valid Unicode text")
                yield loaded.get("id", number - 1), name, loaded[name]
