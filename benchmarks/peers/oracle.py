"""The reference's method: one masked word at a time, batch size 1, the head at every position, fp32."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from augment_service.engine.words import WordSplitter, may_replace


class BatchOneLoop:
    """Candidates of a sentence's single-token words."""

    def __init__(self, model: Path, k: int) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self._model = transformers.AutoModelForMaskedLM.from_pretrained(model).eval()
        self._splitter, self._k = WordSplitter(self._tokenizer), k

    @torch.no_grad()
    def candidates(self, text: str) -> int:
        """Compute the candidates of a text; returns the number of words."""
        (words,) = self._splitter.split([text])
        token_ids = [token for word in words for token in word.piece_ids]
        place = answered = 0
        for word in words:
            if word.is_single_piece and may_replace(word, "reference"):
                masked = [*token_ids[:place], self._tokenizer.mask_token_id, *token_ids[place + 1 :]]
                ids = torch.tensor([[self._tokenizer.cls_token_id, *masked, self._tokenizer.sep_token_id]])
                self._model(input_ids=ids).logits[0, place + 1].topk(self._k)
                answered += 1
            place += len(word.piece_ids)
        return answered
