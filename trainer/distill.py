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
from trainer.losses import (
    attention_loss,
    embedding_loss,
    hard_label_losses,
    hidden_loss,
    multi_label_loss,
    multi_label_losses,
    prediction_loss,
    prediction_losses,
    regression_loss,
    regression_losses,
)
from trainer.recipe import Losses
from trainer.relations import PAPER_OBJECTIVE, Objective, group_scores, pooled_loss, relation_heads, relation_loss
from trainer.scores import EncoderStates, classify, encode
from trainer.student import Projections
from trainer.vocabulary import PrunedVocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class IntermediateDistillation:
    """Equation 11 for layers 0..M. teacher, student: `BertModel`s; mapping: g(m) of layers 1..M.

    vocabulary: the part of the teacher's vocabulary that a pruned student keeps, None when both use the same.
    """

    teacher: Any
    student: Any
    projections: Projections
    mapping: tuple[int, ...]
    objective: Objective = PAPER_OBJECTIVE
    vocabulary: PrunedVocabulary | None = None

    def losses(self, batch: Batch) -> Losses:
        """The weighted terms of the objective for a part of a batch."""
        weights, kind = self.objective.weights, self.objective.attention
        uses_scores, uses_vectors = kind in ("scores", "grouped"), kind == "relations"
        depth = len(self.mapping)
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            theirs = encode(
                self.teacher,
                teacher_ids(self.vocabulary, batch),
                batch.token_type_ids,
                batch.model_mask,
                score_layers=set(self.mapping) if uses_scores else (),
                last_layer=max(self.mapping),
                vector_layers={self.mapping[-1]} if uses_vectors else (),
            )
        own = encode(
            self.student,
            batch.input_ids,
            batch.token_type_ids,
            batch.model_mask,
            score_layers=range(1, depth + 1) if uses_scores else (),
            vector_layers={depth} if uses_vectors else (),
        )
        projections = self.projections.w_h(depth)
        hidden = hidden_loss(
            own.hidden_states[1:], [theirs.hidden_states[layer] for layer in self.mapping], projections, batch.mask
        )
        embedding = embedding_loss(own.hidden_states[0], theirs.hidden_states[0], self.projections.w_e, batch.mask)
        terms = {} if kind == "none" else {"attention": weights["attention"] * self._attention(own, theirs, batch)}
        terms["hidden"] = weights["hidden"] * batch.piece_share * hidden
        terms["embedding"] = weights["embedding"] * batch.piece_share * embedding
        if weights["pooled"]:
            pooled = pooled_loss(own.last, theirs.last, projections[-1], batch.mask)
            terms["pooled"] = weights["pooled"] * batch.row_share * pooled
        return terms

    def _attention(self, own: EncoderStates, theirs: EncoderStates, batch: Batch) -> Tensor:
        """The attention term of a part of a batch, unweighted."""
        depth, config = len(self.mapping), self.student.config
        if self.objective.attention == "relations":
            teacher = self.teacher.config
            num_heads = relation_heads(config.hidden_size, teacher.hidden_size, teacher.num_attention_heads)
            vectors = own.attention_vectors[depth], theirs.attention_vectors[self.mapping[-1]]
            return batch.piece_share * relation_loss(*vectors, num_heads, batch.mask)
        scores = [own.attention_scores[m] for m in range(1, depth + 1)]
        targets = [theirs.attention_scores[layer] for layer in self.mapping]
        if self.objective.attention == "grouped":
            targets = [group_scores(target, config.num_attention_heads) for target in targets]
        return batch.pair_share * attention_loss(scores, targets, batch.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionDistillation:
    """Equation 11 for layer M + 1: the student's logits against the teacher's. Models: sequence classifiers.

    hard_label_weight: w in (1 - w) * prediction + w * cross-entropy with the row's own label; a row without a label
    learns from the teacher alone.
    """

    teacher: Any
    student: Any
    is_regression: bool
    temperature: float
    multi_label: bool = False
    vocabulary: PrunedVocabulary | None = None
    hard_label_weight: float = 0.0

    def losses(self, batch: Batch) -> Losses:
        """The prediction term of a part of a batch; the teacher runs only if the batch has no logits."""
        wanted = self._teacher_logits(batch) if batch.logits is None else batch.logits
        logits = classify(self.student, batch.input_ids, batch.token_type_ids, batch.model_mask)
        if self.hard_label_weight:
            return self._mixed(logits, wanted, batch)
        if self.is_regression:
            loss = regression_loss(logits, wanted)
        elif self.multi_label:
            loss = multi_label_loss(logits, wanted, self.temperature)
        else:
            loss = prediction_loss(logits, wanted, self.temperature)
        return {"prediction": batch.row_share * loss}

    def _mixed(self, logits: Tensor, wanted: Tensor, batch: Batch) -> Losses:
        """The two terms of a part of a batch, each row weighted by whether it has a label."""
        if self.is_regression:
            soft = regression_losses(logits, wanted)
        elif self.multi_label:
            soft = multi_label_losses(logits, wanted, self.temperature)
        else:
            soft = prediction_losses(logits, wanted, self.temperature)
        hard = hard_label_losses(logits, batch.labels, self.is_regression)
        unknown = torch.isnan(batch.labels)
        weight = self.hard_label_weight * ~(unknown.any(-1) if self.multi_label else unknown)
        return {
            "prediction": batch.row_share * ((1.0 - weight) * soft).mean(),
            "hard_labels": batch.row_share * (weight * hard).mean(),
        }

    def _teacher_logits(self, batch: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, enabled=False):
            ids = teacher_ids(self.vocabulary, batch)
            return classify(self.teacher, ids, batch.token_type_ids, batch.model_mask)


def teacher_ids(vocabulary: PrunedVocabulary | None, batch: Batch) -> Tensor:
    """(B, L): the tokens of a batch as the teacher's ids."""
    return batch.input_ids if vocabulary is None else vocabulary.to_original(batch.input_ids)
