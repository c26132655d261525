"""The losses of both distillation stages, for one part of a batch.

Intermediate distillation teaches the student the teacher's embeddings, hidden states and attention scores at the mapped
layers (eq. 7-9); prediction distillation its logits (eq. 10). The teacher runs in eval mode without gradients, only up
to its highest mapped layer, and not at all where the batches carry its logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.data.batches import Batch
from trainer.losses import attention_loss, embedding_loss, hidden_loss, prediction_loss, regression_loss
from trainer.recipe import Losses
from trainer.scores import classify, encode
from trainer.student import Projections


@dataclass(frozen=True, slots=True, kw_only=True)
class IntermediateDistillation:
    """Equation 11 for layers 0..M. teacher, student: `BertModel`s; mapping: g(m) of layers 1..M."""

    teacher: Any
    student: Any
    projections: Projections
    mapping: tuple[int, ...]

    def losses(self, batch: Batch) -> Losses:
        """Attention, hidden and embedding terms of a part of a batch."""
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            theirs = encode(
                self.teacher,
                batch.input_ids,
                batch.token_type_ids,
                batch.model_mask,
                score_layers=set(self.mapping),
                last_layer=max(self.mapping),
            )
        layers = range(1, len(self.mapping) + 1)
        own = encode(self.student, batch.input_ids, batch.token_type_ids, batch.model_mask, score_layers=layers)
        attention = attention_loss(
            [own.attention_scores[m] for m in layers],
            [theirs.attention_scores[layer] for layer in self.mapping],
            batch.mask,
        )
        hidden = hidden_loss(
            own.hidden_states[1:],
            [theirs.hidden_states[layer] for layer in self.mapping],
            self.projections.w_h(len(self.mapping)),
            batch.mask,
        )
        embedding = embedding_loss(own.hidden_states[0], theirs.hidden_states[0], self.projections.w_e, batch.mask)
        return {
            "attention": batch.pair_share * attention,
            "hidden": batch.piece_share * hidden,
            "embedding": batch.piece_share * embedding,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionDistillation:
    """Equation 11 for layer M + 1: the student's logits against the teacher's. Models: sequence classifiers."""

    teacher: Any
    student: Any
    is_regression: bool
    temperature: float

    def losses(self, batch: Batch) -> Losses:
        """The prediction term of a part of a batch; the teacher runs only if the batch has no logits."""
        wanted = self._teacher_logits(batch) if batch.logits is None else batch.logits
        states = encode(self.student.bert, batch.input_ids, batch.token_type_ids, batch.model_mask)
        logits = classify(self.student, states)
        if self.is_regression:
            loss = regression_loss(logits, wanted)
        else:
            loss = prediction_loss(logits, wanted, self.temperature)
        return {"prediction": batch.row_share * loss}

    def _teacher_logits(self, batch: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            states = encode(self.teacher.bert, batch.input_ids, batch.token_type_ids, batch.model_mask)
            return classify(self.teacher, states)
