"""Configuration of `trainer mlm`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from shared.cli.config import CommandConfig, identity, runtime


class MlmConfig(CommandConfig):
    """Encoder, corpus and recipe of a masked LM."""

    group: ClassVar[str] = "Masked LM"

    encoder: str = identity("embedded", "BERT encoder or masked LM to start from: embedded, a folder or a hub id.")
    start_from: str | None = identity(
        None,
        "Masked-LM delta of the embedded encoder to go on from: embedded (the one that ships) or a file; "
        "the optimizer starts afresh, --adapters and --embedding-rank must be the delta's.",
    )
    corpus: tuple[str, ...] = identity(..., "Text files, one passage a line; .xz and .gz are unpacked.", min_length=1)
    corpus_weights: tuple[float, ...] = identity(
        (),
        "Passes over each corpus file in one epoch, in --corpus order; fractions take a part (default 1 each).",
    )
    output: str = runtime(..., "Folder for the model, metrics and checkpoints; an interrupted run resumes from it.")
    epochs: float = identity(1.0, "Passes over the weighted corpus.", gt=0)
    max_tokens: int | None = runtime(
        None, "Stop after this many training tokens, if that is sooner than --epochs.", ge=1
    )
    batch_size: int = identity(64, "Sequences of --max-length per step; shorter ones fill the same token budget.", ge=1)
    max_length: int = identity(128, "Longest training sequence, in pieces.", ge=8, le=512)
    lr: float = identity(5e-4, "Peak learning rate.", gt=0)
    warm_up_share: float = identity(0.04, "Share of the training tokens in which the learning rate rises.", ge=0, lt=1)
    decay_share: float = identity(
        0.3, "Share of the training tokens, at the end, in which it falls to zero.", ge=0, le=1
    )
    mask_probability: float = identity(0.2, "Share of pieces to predict: 80% [MASK], 10% random, 10% kept.", gt=0, lt=1)
    adapters: int = identity(
        0, "Rank of low-rank adapters on the encoder's linear layers; 0 trains all its weights.", ge=0
    )
    embedding_rank: int = identity(48, "Rank of the learned change of the tied embeddings; 0 keeps them.", ge=0)
    weight_decay: float = identity(0.01, "AdamW weight decay of matrices.", ge=0)
    held_out: float = identity(0.02, "Share of lines, chosen by hash, that is kept for evaluation.", ge=0, lt=0.5)
    evaluate_files: tuple[str, ...] = runtime(
        (), "Corpus files whose held-out lines are scored (default: all of them)."
    )
    evaluate_tokens: int = runtime(2_000_000, "Training tokens between two evaluations.", ge=1)
    checkpoint_seconds: float = runtime(300.0, "Seconds between two checkpoints.", gt=0)
    seed: int = identity(0, "Seed of order, masks and new weights.", ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = identity("auto", "Where to compute.")
    dtype: Literal["auto", "fp32", "bf16"] = identity("auto", "Precision of the matrix products.")
    threads: int | None = identity(None, "CPU threads (default: as many as the machine has).", ge=1)

    @model_validator(mode="after")
    def _options_fit_together(self) -> MlmConfig:
        if self.corpus_weights and len(self.corpus_weights) != len(self.corpus):
            raise ValueError(
                f"--corpus-weights has {len(self.corpus_weights)} numbers for {len(self.corpus)} files of --corpus"
            )
        if self.start_from and (self.encoder != "embedded" or not self.adapters):
            raise ValueError(
                "--start-from goes on from a delta of adapters: it needs --encoder embedded and --adapters"
            )
        return self
