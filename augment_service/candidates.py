"""The `candidates` command: reads JSONL of texts, writes one JSON line per text with its words and candidate sets."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augment_service.config import CandidatesConfig
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.batch_size import resolve_batch_tokens
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.presence import check_models_exist
from augment_service.engine.proposer import TextProposals
from shared.compute.memory import keep_freed_memory
from shared.errors import InputError

NUM_RANKED = 30
BATCH_TEXTS = 64
CHUNK_BYTES = 1 << 16
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Text:
    """One text of a line: the line's id, the name of the field, and the text."""

    identifier: Any
    field: str
    text: str


def run_command(config: CandidatesConfig) -> None:
    """Answer every line of the input on stdout, in order and as lines arrive.

    An unusable line is skipped and reported as a JSON line on stderr. Raises InputError at the end if there were any,
    or if the input has no lines.
    """
    engine: AugmentEngine | None = None
    num_lines, problems = 0, list[str]()
    for lines in _arriving_lines(config.input):
        texts: list[_Text] = []
        for number, line in lines:
            num_lines += 1
            where = f"{config.input} line {number}"
            try:
                texts += _texts_of(line, number, where)
            except InputError as error:
                problems.append(str(error))
                print(json.dumps(_error_line(line, number, str(error))), file=sys.stderr, flush=True)
        if texts:
            engine = engine or _load(config)
            for start in range(0, len(texts), BATCH_TEXTS):
                _answer(engine, texts[start : start + BATCH_TEXTS])
    if problems:
        raise InputError(f"{len(problems)} of {num_lines} lines could not be used; the first: {problems[0]}")
    if not num_lines:
        raise InputError(f"--input {config.input} has no lines; it needs one JSON object per line")


def _load(config: CandidatesConfig) -> AugmentEngine:
    keep_freed_memory()
    check_models_exist(config.mlm, config.glove)
    masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.threads)
    vectors = GloveVectors.load(config.glove, config.glove_limit)
    return AugmentEngine(masked_lm, vectors, config.params(), resolve_batch_tokens(config.batch_tokens, masked_lm))


def candidate_line(engine: AugmentEngine, identifier: Any, field: str, found: TextProposals) -> dict[str, Any]:
    """One line of output: words, their tokens, and the candidates of each replaceable word, best first."""
    to_tokens = engine.lexicon.tokenizer.convert_ids_to_tokens
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


def _answer(engine: AugmentEngine, texts: list[_Text]) -> None:
    found = engine.propose([one.text for one in texts], NUM_RANKED, protects=True)
    for one, proposals in zip(texts, found, strict=True):
        line = candidate_line(engine, one.identifier, one.field, proposals)
        print(json.dumps(line, ensure_ascii=False), flush=True)


def _error_line(line: bytes, number: int, message: str) -> dict[str, Any]:
    """The error output for an unusable line, with its id if it has one."""
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError):
        loaded = None
    known = {"id": loaded["id"]} if isinstance(loaded, dict) and "id" in loaded else {}
    return {"line": number, **known, "error": message}


def _arriving_lines(path: str) -> Iterator[list[tuple[int, bytes]]]:
    """Batches of the numbered non-blank lines available so far, each as soon as it has a line. Raises InputError."""
    try:
        opened: Any = contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb")  # noqa: SIM115
        with opened as file:
            number, rest = 0, b""
            while chunk := file.read1(CHUNK_BYTES):
                *whole, rest = (rest + chunk).split(b"\n")
                lines = list(enumerate(whole, start=number + 1))
                number += len(whole)
                if lines := [(one, line) for one, line in lines if line.strip()]:
                    yield lines
            if rest.strip():
                yield [(number + 1, rest)]
    except OSError as error:
        raise InputError(f"--input {path}: {error.strerror}") from error


def _texts_of(line: bytes, number: int, where: str) -> list[_Text]:
    """The one or two texts of a line. Raises InputError naming the problem."""
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
    fields = [name for name in ("text", "text_a", "text_b") if isinstance(loaded, dict) and name in loaded]
    if not fields:
        raise InputError(f'{where} needs {{"id", "text"}} or {{"id", "text_a", "text_b"}}')
    identifier = loaded.get("id", number - 1)
    if _SURROGATE.search(json.dumps(identifier, ensure_ascii=False)):
        raise InputError(f"{where}: id contains a lone surrogate, which is not valid Unicode text")
    for name in fields:
        if not isinstance(loaded[name], str):
            raise InputError(f"{where}: {name} must be a string")
        if _SURROGATE.search(loaded[name]):
            raise InputError(f"{where}: {name} contains a lone surrogate, which is not valid Unicode text")
    return [_Text(identifier, name, loaded[name]) for name in fields]
