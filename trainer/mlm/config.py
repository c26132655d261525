"""Configuration of `trainer mlm`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from shared.cli.config import identity, runtime
from trainer.config import CorpusConfig


class MlmConfig(CorpusConfig):
    """Encoder, corpus and recipe of a masked LM."""

    group: ClassVar[str] = "Masked LM"

    encoder: str = identity("embedded", "BERT encoder or masked LM to start from: embedded, a folder or a hub id.")
    start_from: str | None = identity(
        None,
        "Masked-LM delta of the embedded encoder to continue from: embedded (the one shipped here) or a file. The "
        "optimizer starts from scratch; --adapters and --embedding-rank must match the delta.",
    )
    batch_size: int = identity(
        64, "Sequences of --max-length tokens per step, across all workers; more if they are shorter.", ge=1
    )
    lr: float = identity(5e-4, "Peak learning rate.", gt=0)
    warm_up_share: float = identity(
        0.04, "Share of the training tokens spent warming up the learning rate.", ge=0, lt=1
    )
    decay_share: float = identity(
        0.3, "Share of the training tokens, at the end, in which the learning rate decays to zero.", ge=0, le=1
    )
    mask_probability: float = identity(
        0.2, "Share of tokens to predict: 80% become [MASK], 10% a random token, 10% stay unchanged.", gt=0, lt=1
    )
    adapters: int = identity(
        0, "Rank of low-rank adapters on the encoder's linear layers; 0 trains all its weights.", ge=0
    )
    embedding_rank: int = identity(48, "Rank of the learned update of the tied embeddings; 0 keeps them frozen.", ge=0)
    held_out: float = identity(0.02, "Share of lines, chosen by hash, to hold out for evaluation.", ge=0, lt=0.5)
    evaluate_files: tuple[str, ...] = runtime(
        (), "Corpus files whose held-out lines are scored (default: all of them)."
    )
    evaluate_tokens: int = runtime(2_000_000, "Training tokens between evaluations.", ge=1)
    seed: int = identity(0, "Seed for sequence order, masks and new weights.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _options_fit_together(self) -> MlmConfig:
        if self.start_from and (self.encoder != "embedded" or not self.adapters):
            raise ValueError(
                "--start-from continues from a delta with adapters: it needs --encoder embedded and --adapters"
            )
        unknown = [path for path in self.evaluate_files if path not in self.corpus]
        if unknown:
            raise ValueError(f"--evaluate-files {unknown[0]} is not one of the files of --corpus")
        return self
