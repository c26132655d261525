"""Words to be ranked -> inputs of the masked LM (pure): masked variants, and windows over texts that are too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from augment_service.engine.batches import Ints, ModelInputs, offsets, ranges
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.words import Word
from shared.params import Context


class Place(NamedTuple):
    """A word to be replaced: index of its text, and of the word in that text."""

    text: int
    word: int


@dataclass(frozen=True, slots=True)
class InputPlan:
    """`inputs` for the masked LM. Place i is answered by input `input[i]`, at its wanted position `position[i]`."""

    inputs: ModelInputs
    input: Ints
    position: Ints

    @property
    def row(self) -> Ints:
        """Per place, the row of the Rankings of `inputs` that answers it."""
        return self.inputs.first_position[self.input] + self.position

    @property
    def model_position(self) -> Ints:
        """Per place, the index of its token in its input."""
        return self.inputs.positions[self.row]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Concatenated token ids of texts (int32); text t has `first[t]` to `first[t + 1]`."""

    ids: NDArray[np.int32]
    first: Ints


@dataclass(frozen=True, slots=True)
class InputPlanner:
    """Builds model inputs for one tokenizer and one `context` switch."""

    lexicon: Lexicon
    context: Context

    def plan(self, words_of: Sequence[Sequence[Word]], places: Sequence[Place]) -> InputPlan:
        """Inputs for single-token words. `words_of`: the words of each text, indexed by places."""
        ids: list[int] = []
        first: list[int] = [0]
        starts: dict[int, list[int]] = {}
        number_of: dict[int, int] = {}
        for text in dict.fromkeys(place.text for place in places):
            number_of[text], starts[text] = len(number_of), []
            for word in words_of[text]:
                starts[text].append(len(ids) - first[-1])
                ids += word.piece_ids
            first.append(len(ids))
        tokens = Tokens(np.asarray(ids, np.int32), np.asarray(first, np.int64))
        text_numbers = np.asarray([number_of[place.text] for place in places], np.int64)
        positions = np.asarray([starts[place.text][place.word] for place in places], np.int64)
        return self.plan_tokens(tokens, text_numbers, positions)

    def plan_tokens(self, tokens: Tokens, text: Ints, position: Ints) -> InputPlan:
        """Inputs for the tokens at `position` of each `text`, both (places,) and ascending by text, then position."""
        if self.context == "unmasked":
            return self._windows(tokens, text, position)
        return self._masked(tokens, text, position)

    def _masked(self, tokens: Tokens, text: Ints, position: Ints) -> InputPlan:
        """Each text with [MASK] at one position, cut to a window around it; context `pair` appends the original."""
        lexicon, is_pair = self.lexicon, self.context == "pair"
        room = (lexicon.max_length - 3) // 2 if is_pair else lexicon.max_length - 2
        num_tokens = np.diff(tokens.first)[text]
        low = np.minimum(np.maximum(position - room // 2, 0), np.maximum(num_tokens - room, 0))
        size = np.minimum(num_tokens - low, room)
        lengths = 2 * size + 3 if is_pair else size + 2
        starts = offsets(lengths)
        begin, end = starts[:-1], starts[1:]
        window = tokens.ids[ranges(tokens.first[text] + low, size)]
        ids = np.empty(int(starts[-1]), np.int32)
        ids[begin] = lexicon.cls_id
        ids[end - 1] = lexicon.sep_id
        ids[ranges(begin + 1, size)] = window
        ids[begin + 1 + position - low] = lexicon.mask_id
        if is_pair:
            ids[begin + 1 + size] = lexicon.sep_id
            ids[ranges(begin + 2 + size, size)] = window
        count = len(position)
        inputs = ModelInputs(ids, starts, position - low + 1, np.arange(count + 1), size + 2)
        return InputPlan(inputs, np.arange(count), np.zeros(count, np.int64))

    def _windows(self, tokens: Tokens, text: Ints, position: Ints) -> InputPlan:
        """One input per window of each text, with the positions of all its words.

        Windows overlap by half; each word is predicted in the window whose centre is nearest.
        """
        room = self.lexicon.max_length - 2
        stride = room // 2
        num_tokens = np.diff(tokens.first)[text]
        nearest = np.maximum(np.round((position - room / 2) / stride).astype(np.int64), 0) * stride
        low = np.where(num_tokens <= room, 0, np.minimum(nearest, num_tokens - room))
        # Places are sorted, so those of one window are adjacent.
        is_new = np.ones(len(text), np.bool_)
        is_new[1:] = (text[1:] != text[:-1]) | (low[1:] != low[:-1])
        opened = np.flatnonzero(is_new)
        number = np.cumsum(is_new) - 1
        size = np.minimum(num_tokens[opened], room)
        starts = offsets(size + 2)
        ids = np.empty(int(starts[-1]), np.int32)
        ids[starts[:-1]], ids[starts[1:] - 1] = self.lexicon.cls_id, self.lexicon.sep_id
        ids[ranges(starts[:-1] + 1, size)] = tokens.ids[ranges(tokens.first[text[opened]] + low[opened], size)]
        first_position = np.concatenate([opened, [len(text)]]).astype(np.int64)
        inputs = ModelInputs(ids, starts, position - low + 1, first_position, size + 2)
        return InputPlan(inputs, number, np.arange(len(text)) - opened[number])
