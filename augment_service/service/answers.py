"""JSON forms of samples and candidates, as the service answers them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from augment_service.engine.augment import Proposer, TextProposals
from shared.sampling import RowCandidates, Samples


@dataclass(slots=True)
class _Rendering:
    """A text that is rewritten from left to right. Positions are code points."""

    text: str
    parts: list[str] = field(default_factory=list)
    next_start: int = 0
    length: int = 0

    def replace(self, start: int, end: int, word: str) -> tuple[int, int]:
        """Replace [start, end) of the original text; returns the span of `word` in the new text."""
        new_start = self.length + start - self.next_start
        self.parts += (self.text[self.next_start : start], word)
        self.next_start, self.length = end, new_start + len(word)
        return new_start, self.length

    def finish(self) -> str:
        """The new text."""
        return "".join([*self.parts, self.text[self.next_start :]])


def sample_list(row: RowCandidates, samples: Samples) -> list[dict[str, Any]]:
    """The samples of one row; `replaced` holds code points of the sample's own text."""
    sites = [("text_a", site) for site in row.text_a.sites]
    sites += [("text_b", site) for site in row.text_b.sites] if row.text_b else []
    offsets, numbers = samples.offsets.tolist(), samples.n.tolist()
    chosen, words, origins = samples.site.tolist(), samples.word.tolist(), samples.origin.tolist()
    result = []
    for index, n in enumerate(numbers):
        texts = {"text_a": _Rendering(row.text_a.text)}
        if row.text_b:
            texts["text_b"] = _Rendering(row.text_b.text)
        replaced = []
        for place in range(offsets[index], offsets[index + 1]):
            column, site = sites[chosen[place]]
            candidate = samples.words[words[place]]
            start, end = texts[column].replace(site.start, site.end, candidate)
            replaced.append(
                {
                    "column": column,
                    "start": start,
                    "end": end,
                    "word": site.word,
                    "candidate": candidate,
                    "origin": "glove" if origins[place] else "mlm",
                }
            )
        new_b = texts["text_b"].finish() if "text_b" in texts else None
        result.append({"n": n, "text_a": texts["text_a"].finish(), "text_b": new_b, "replaced": replaced})
    return result


def column_candidates(proposer: Proposer, found: TextProposals, text: str) -> dict[str, Any]:
    """One text and its words in order, each with its candidates. `text`: the string that samples are made from."""
    _, spans = proposer.base_text(found.text, found.words)
    proposal_of = {one.word_index: one for one in found.proposals}
    words = []
    for index, (word, (start, end)) in enumerate(zip(found.words, spans, strict=True)):
        one = proposal_of.get(index)
        words.append(
            {
                "start": start,
                "end": end,
                "word": word.text,
                "origin": one.origin if one else None,
                "candidates": one.candidates if one else (),
                "scores": one.scores if one else (),
            }
        )
    return {"text": text, "words": words}
