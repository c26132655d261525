"""`trainer mlm`: the loop from corpus files to a plain `BertForMaskedLM` folder.

The order of batches, the masks and the learning rate are functions of (configuration, tokens seen), so a checkpoint is
weights, optimizer moments and two counters; a run that was killed gives the same weights as one that was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.cli.command_line import CommandResult
from shared.cli.progress import Progress, format_seconds
from shared.compute.hardware import resolve_device, resolve_dtype
from shared.compute.memory import keep_freed_memory
from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import TrainingError
from trainer.checkpoint import (
    CHECKPOINT,
    append_metrics,
    keep_metrics,
    load_checkpoint,
    open_run,
    save_checkpoint,
)
from trainer.data.corpus import (
    Batch,
    TokenFile,
    Vocabulary,
    epoch_batches,
    make_batch,
    split_lines,
    tokenize,
)
from trainer.mlm.config import MlmConfig
from trainer.mlm.delta import save_delta, start_from_delta
from trainer.mlm.evaluate import score_held_out
from trainer.mlm.model import TrainableMaskedLM, load_trainable

logger = logging.getLogger(__name__)

GRADIENT_CLIP = 1.0
BETAS = (0.9, 0.98)
METRICS_PERIOD_STEPS = 20


@dataclass(slots=True)
class Cursor:
    """Where training stands; everything that happened before it follows from the configuration."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated_tokens: int = 0
    metrics_lines: int = 0


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training and held-out pieces, one TokenFile per corpus file."""

    names: tuple[str, ...]
    train: list[TokenFile]
    dev: list[TokenFile]
    vocabulary: Vocabulary


@dataclass(slots=True)
class Session:
    """What one step needs."""

    config: MlmConfig
    corpus: Corpus
    model: TrainableMaskedLM
    optimizer: torch.optim.Optimizer
    device: str
    dtype: torch.dtype
    total_tokens: int
    cursor: Cursor = field(default_factory=Cursor)
    unreported_losses: list[float] = field(default_factory=list)
    """Losses since the last line of metrics; part of a checkpoint, so that a resumed run writes the same curve."""


def run_command(config: MlmConfig) -> CommandResult:
    """Train, or go on training; leaves `OUTPUT/model` (loadable by plain transformers) and `OUTPUT/metrics.jsonl`."""
    # Before the folder is made and the corpus read: what this machine cannot do is said at once.
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    output = open_run(config.output, "mlm", config.identity())
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    encoder = resolve_encoder(config.encoder)
    corpus = load_corpus(config, encoder)
    session = open_session(config, corpus, encoder, device, dtype)
    _resume(session, output)
    _train(session, output)
    scores = _evaluate(session, output)
    _save_model(session, encoder, output / "model")
    summary = {
        "tokens": session.cursor.tokens,
        "steps": session.cursor.step,
        "seconds": round(session.cursor.seconds, 1),
        "held_out": scores,
        "model": str(output / "model"),
    }
    lines = [
        f"trained on {session.cursor.tokens:,} tokens in {format_seconds(session.cursor.seconds)}: {output / 'model'}"
    ]
    lines += [
        f"  {name}: perplexity {score['perplexity']:.1f}, top-1 {score['top_1']:.1%}, top-15 {score['top_15']:.1%}"
        for name, score in scores.items()
    ]
    return CommandResult(summary, "\n".join(lines))


def load_corpus(config: MlmConfig, encoder: str) -> Corpus:
    """Read, split and tokenize the corpus files."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    train: list[TokenFile] = []
    dev: list[TokenFile] = []
    for path in config.corpus:
        kept, held_out = split_lines(path, config.held_out)
        train.append(tokenize(kept, tokenizer))
        dev.append(tokenize(held_out, tokenizer))
        logger.info("corpus", extra={"fields": {"file": path, "lines": len(kept), "pieces": len(train[-1].ids)}})
    return Corpus(tuple(config.corpus), train, dev, Vocabulary.of(tokenizer))


def open_session(config: MlmConfig, corpus: Corpus, encoder: str, device: str, dtype: torch.dtype) -> Session:
    """Model and optimizer on `device`, products in `dtype`, nothing trained yet. Raises UsageError."""
    model = load_trainable(encoder, config.embedding_rank, config.adapters).to(device)
    if not model.has_head:
        model.set_unigram_bias(file.ids for file in corpus.train)
    if config.start_from:
        start_from_delta(model, config.start_from)
    model.train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=True)
    weights = config.corpus_weights or (1.0,) * len(corpus.train)
    per_epoch = sum(weight * len(file.ids) for weight, file in zip(weights, corpus.train, strict=True))
    total = int(per_epoch * config.epochs)
    return Session(config, corpus, model, optimizer, device, dtype, min(total, config.max_tokens or total))


def _train(session: Session, output: Path) -> None:
    config, cursor = session.config, session.cursor
    progress = Progress("mlm", session.total_tokens, "tokens", start=cursor.tokens)
    began, saved = time.monotonic() - cursor.seconds, time.monotonic()
    for batch in training_batches(session):
        loss = take_step(session, batch)
        cursor.step += 1
        cursor.tokens += batch.num_tokens
        cursor.seconds = time.monotonic() - began
        session.unreported_losses.append(loss)
        if cursor.step % METRICS_PERIOD_STEPS == 0:
            mean_loss = float(np.mean(session.unreported_losses))
            session.unreported_losses.clear()
            _record(output, session, {"loss": round(mean_loss, 4), "lr": learning_rate(config, _share_done(session))})
            progress.update(cursor.tokens, loss=mean_loss)
        if cursor.tokens - cursor.evaluated_tokens >= config.evaluate_tokens:
            cursor.evaluated_tokens = cursor.tokens
            _evaluate(session, output)
        if time.monotonic() - saved > config.checkpoint_seconds:
            _checkpoint(session, output / CHECKPOINT)
            saved = time.monotonic()
    progress.close()
    _checkpoint(session, output / CHECKPOINT)


def training_batches(session: Session) -> Iterator[Batch]:
    """Batches from the cursor to the end of training; moves the cursor's epoch and batch."""
    config, cursor, corpus = session.config, session.cursor, session.corpus
    weights = config.corpus_weights or (1.0,) * len(corpus.train)
    while cursor.tokens < session.total_tokens:
        plan = epoch_batches(
            corpus.train, weights, config.max_length, config.batch_size * config.max_length, corpus.vocabulary,
            config.seed, cursor.epoch,
        )  # fmt: skip
        while cursor.batch < len(plan):
            if cursor.tokens >= session.total_tokens:
                return
            rows = plan[cursor.batch]
            cursor.batch += 1
            yield make_batch(
                corpus.train, rows, corpus.vocabulary, config.max_length, config.mask_probability, config.seed,
                cursor.step,
            )  # fmt: skip
        cursor.epoch, cursor.batch = cursor.epoch + 1, 0


def take_step(session: Session, batch: Batch) -> float:
    for group in session.optimizer.param_groups:
        group["lr"] = learning_rate(session.config, _share_done(session))
    if not len(batch.positions):
        return 0.0
    move = lambda array: torch.from_numpy(array).to(session.device, non_blocking=True)  # noqa: E731
    with torch.autocast(session.device, session.dtype, enabled=session.dtype != torch.float32):
        loss: Tensor = session.model(*map(move, (batch.ids, batch.lengths, batch.positions, batch.labels)))
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    if not np.isfinite(value):
        raise TrainingError(
            f"the loss of step {session.cursor.step} is {value}; the last checkpoint is kept. Try a lower --lr."
        )
    torch.nn.utils.clip_grad_norm_(session.model.parameters(), GRADIENT_CLIP)
    session.optimizer.step()
    session.optimizer.zero_grad(set_to_none=True)
    return value


def _share_done(session: Session) -> float:
    return session.cursor.tokens / max(session.total_tokens, 1)


def learning_rate(config: MlmConfig, share: float) -> float:
    """Warm-up, plateau, then down to zero (1 - sqrt), by the share of training tokens seen in [0, 1]."""
    if share < config.warm_up_share:
        return config.lr * (share / config.warm_up_share + 1e-3)
    decay_start = 1.0 - config.decay_share
    if share <= decay_start or config.decay_share == 0:
        return config.lr
    return float(config.lr * (1.0 - np.sqrt(min((share - decay_start) / config.decay_share, 1.0))))


def _evaluate(session: Session, output: Path) -> dict[str, dict[str, float]]:
    config = session.config
    wanted = config.evaluate_files or config.corpus
    scores = {}
    for path, file in zip(session.corpus.names, session.corpus.dev, strict=True):
        if path in wanted and len(file.ids):
            score = score_held_out(
                session.model, file, session.corpus.vocabulary, config.max_length, session.dtype, session.device
            )
            scores[Path(path).name] = score.as_dict()
    _record(output, session, {"held_out": scores})
    for name, values in scores.items():
        logger.info("held_out", extra={"fields": {"file": name, "tokens": session.cursor.tokens} | values})
    return scores


def _record(output: Path, session: Session, entry: dict[str, Any]) -> None:
    cursor = session.cursor
    cursor.metrics_lines += 1
    stamp = {"step": cursor.step, "tokens": cursor.tokens, "seconds": round(cursor.seconds, 1)}
    append_metrics(output, stamp | entry)


def _checkpoint(session: Session, path: Path) -> None:
    trained = {name: value for name, value in session.model.named_parameters() if value.requires_grad}
    cursor = {name: getattr(session.cursor, name) for name in Cursor.__slots__}
    state = {
        "weights": trained,
        "optimizer": session.optimizer.state_dict(),
        "cursor": cursor,
        "unreported_losses": session.unreported_losses,
    }
    save_checkpoint(path, state)


def _resume(session: Session, output: Path) -> None:
    state = load_checkpoint(output / CHECKPOINT, session.device)
    if state is not None:
        own = dict(session.model.named_parameters())
        with torch.no_grad():
            for name, value in state["weights"].items():
                own[name].copy_(value)
        session.optimizer.load_state_dict(state["optimizer"])
        session.cursor = Cursor(**state["cursor"])
        session.unreported_losses = state["unreported_losses"]
        logger.info("resumed", extra={"fields": {"step": session.cursor.step, "tokens": session.cursor.tokens}})
    keep_metrics(output, session.cursor.metrics_lines)


def _save_model(session: Session, encoder: str, folder: Path) -> None:
    from transformers import AutoTokenizer

    session.model.merged().save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    if session.config.encoder == EMBEDDED and session.config.adapters:
        save_delta(session.model, folder.parent / "masked_lm_delta.safetensors")
