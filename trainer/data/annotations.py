"""Stored teacher logits for a job's shards: their location and provenance.

`annotations.json` is written before the first shard of logits. Readers and later runs check it, so logits of another
job, of an earlier job in the same folder, or of another tokenizer are rejected instead of being learned.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared.errors import ManifestError
from shared.storage.store import Store

FACTS = "annotations.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFacts:
    """What logits were made from.

    augmented: fingerprint of the job's manifest; teacher, tokenizer: fingerprints; dtype: precision of the teacher's
    encoder; n_a: samples per source row; max_length: longest input in tokens.
    """

    augmented: str
    teacher: str
    tokenizer: str
    max_length: int
    dtype: str | None = None
    n_a: int | None = None

    def uri(self, augmented_uri: str) -> str:
        """Where the logits are stored, within the job's output."""
        return f"{augmented_uri.rstrip('/')}/annotations/{self.teacher[:16]}-{self.max_length}"


def write_facts(store: Store, facts: AnnotationFacts) -> None:
    """Record what the logits are made from, or check that earlier ones were made from the same. Raises ManifestError.

    n_a is not compared: see the commits.
    """
    content = json.dumps(asdict(facts), indent=1).encode()
    if store.list("commits") or not store.put_if_absent(FACTS, content):
        check_facts(store, facts)


def check_facts(store: Store, wanted: AnnotationFacts) -> None:
    """Compare the facts known on both sides. Raises ManifestError naming the difference."""
    mend = "remove that folder and run `trainer annotate` again"
    if not store.exists(FACTS):
        raise ManifestError(
            f"{store.uri} was written by an earlier version, which did not record what its logits were computed from: "
            f"{mend}"
        )
    try:
        found: AnnotationFacts = TypeAdapter(AnnotationFacts).validate_python(json.loads(store.read(FACTS)))
    except (ValueError, ValidationError) as error:
        raise ManifestError(f"{store.uri}/{FACTS} is damaged ({str(error).splitlines()[0]}): {mend}") from error
    mine, theirs = asdict(wanted), asdict(replace(found, n_a=wanted.n_a))
    for name, value in mine.items():
        if value is not None and theirs[name] != value:
            raise ManifestError(
                f"{store.uri} holds logits computed with a different {_NAMES[name]} ({_short(theirs[name])}, now "
                f"{_short(value)}): {mend}"
            )


_NAMES = {
    "augmented": "version of the augmentation job's output",
    "teacher": "teacher",
    "tokenizer": "tokenizer",
    "max_length": "--max-length",
    "dtype": "--dtype",
}


def _short(value: Any) -> str:
    return str(value)[:16]
