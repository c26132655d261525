"""Words to be ranked -> inputs of the masked LM (pure): masked variants, and windows of texts longer than the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import ModelInput
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.words import Word
from shared.params import Context


class Place(NamedTuple):
    """A word to be replaced: index of its text, and of the word in that text."""

    text: int
    word: int


class Wanted(NamedTuple):
    """Where a place is answered: index of the model input, and which of that input's positions."""

    input: int
    position: int


@dataclass(frozen=True, slots=True)
class InputPlan:
    """`inputs` for the masked LM; `wanted[i]` says which of their answers belongs to place i."""

    inputs: tuple[ModelInput, ...]
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class InputPlanner:
    """Builds model inputs for one tokenizer and one `context` switch."""

    lexicon: Lexicon
    context: Context

    def plan(self, words_of: Sequence[Sequence[Word]], places: Sequence[Place]) -> InputPlan:
        """Inputs for single-piece words. `words_of`: the words of each text that a place refers to."""
        token_ids: dict[int, list[int]] = {}
        starts: dict[int, NDArray[np.int64]] = {}
        for text in dict.fromkeys(place.text for place in places):
            token_ids[text], starts[text] = _flatten(words_of[text])
        located = [(place.text, int(starts[place.text][place.word])) for place in places]
        if self.context == "unmasked":
            return self._windows(token_ids, located)
        inputs = tuple(self._masked(token_ids[text], position) for text, position in located)
        return InputPlan(inputs, tuple(Wanted(number, 0) for number in range(len(inputs))))

    def _windows(self, token_ids: dict[int, list[int]], located: Sequence[tuple[int, int]]) -> InputPlan:
        """One input per window of each text, asked at the positions of all its words.

        Windows overlap by half; a word is answered by the window whose centre is nearest.
        """
        number_of: dict[tuple[int, int], int] = {}
        windows: list[Sequence[int]] = []
        positions: list[list[int]] = []
        wanted: list[Wanted] = []
        for text, position in located:
            low, high = self._stride_window(len(token_ids[text]), position)
            number = number_of.setdefault((text, low), len(windows))
            if number == len(windows):
                windows.append(token_ids[text][low:high])
                positions.append([])
            wanted.append(Wanted(number, len(positions[number])))
            positions[number].append(position - low + 1)
        inputs = tuple(self._framed(window, tuple(own)) for window, own in zip(windows, positions, strict=True))
        return InputPlan(inputs, tuple(wanted))

    def _masked(self, ids: list[int], position: int) -> ModelInput:
        """The text with [MASK] at `position`, cut to a window around it; followed by the original in context `pair`."""
        lexicon = self.lexicon
        room = lexicon.max_length - 2 if self.context == "single" else (lexicon.max_length - 3) // 2
        low = min(max(position - room // 2, 0), max(len(ids) - room, 0))
        window = ids[low : low + room]
        masked = [*window[: position - low], lexicon.mask_id, *window[position - low + 1 :]]
        first = (lexicon.cls_id, *masked, lexicon.sep_id)
        if self.context == "single":
            return ModelInput(first, (position - low + 1,), len(first))
        return ModelInput((*first, *window, lexicon.sep_id), (position - low + 1,), len(first))

    def _framed(self, ids: Sequence[int], positions: tuple[int, ...]) -> ModelInput:
        framed = (self.lexicon.cls_id, *ids, self.lexicon.sep_id)
        return ModelInput(framed, positions, len(framed))

    def _stride_window(self, length: int, position: int) -> tuple[int, int]:
        room = self.lexicon.max_length - 2
        if length <= room:
            return 0, length
        stride = room // 2
        low = min(max(round((position - room / 2) / stride), 0) * stride, length - room)
        return low, low + room


def _flatten(words: Iterable[Word]) -> tuple[list[int], NDArray[np.int64]]:
    """Token ids of a text, and the index of each word's first token."""
    ids: list[int] = []
    starts: list[int] = []
    for word in words:
        starts.append(len(ids))
        ids += word.piece_ids
    return ids, np.asarray(starts, np.int64)
