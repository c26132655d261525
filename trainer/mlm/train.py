"""`trainer mlm`: from corpus files to a plain `BertForMaskedLM` folder, as one stage of the common loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import format_seconds
from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import ModelError
from trainer.data.budget import Tokens
from trainer.data.corpus import Vocabulary, corpus_digests
from trainer.data.corpus_cache import CorpusCache
from trainer.data.text import TextSource
from trainer.data.token_file import TokenFile
from trainer.loop import train
from trainer.mlm.config import MlmConfig
from trainer.mlm.delta import save_delta, start_from_delta
from trainer.mlm.evaluate import score_held_out
from trainer.mlm.masking import MaskedBatch, MaskedSource, Masking
from trainer.mlm.model import TrainableMaskedLM, load_trainable
from trainer.models import (
    count_parameters,
    fingerprint,
    fitting_length,
    load_tokenizer,
    replace_folder,
    tokenizer_fingerprint,
)
from trainer.recipe import Evaluation, Losses, Recipe, Scores, Stage, every_tokens, plateau_schedule
from trainer.result import MaskedAccuracy, RunResult, write_result
from trainer.state import Run, State, Worker
from trainer.workers import run_to_result, start_run

logger = logging.getLogger(__name__)

BETAS = (0.9, 0.98)
METRICS_PERIOD_STEPS = 20
DELTA = "masked_lm_delta.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Training and held-out lines, one TokenFile per corpus file. digests: sha256 of each file."""

    names: Sequence[str]
    digests: Mapping[str, str]
    train: Sequence[TokenFile]
    held_out: Sequence[TokenFile]
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class MaskedPrediction:
    """Cross-entropy of the masked tokens."""

    model: TrainableMaskedLM

    def losses(self, batch: MaskedBatch) -> Losses:
        """The one term of a part of a batch."""
        loss = self.model(batch.ids, batch.lengths, batch.positions, batch.labels)
        return {"mlm": batch.target_share * loss}


def run_command(config: MlmConfig) -> CommandResult:
    """Train, or resume; leaves OUTPUT/model, metrics.jsonl, result.json. Raises ExpectedError."""
    with start_run("mlm", config) as run:
        result = run_to_result(_work, config, run)
    lines = [f"trained on {result.tokens or 0:,} tokens in {format_seconds(result.seconds)}: {run.model}"]
    lines += [
        f"  {name}: perplexity {score.perplexity:.1f}, top-1 {score.top_1:.1%}, top-15 {score.top_15:.1%}"
        for name, score in (result.held_out or {}).items()
    ]
    return CommandResult(result.to_json() | {"model": run.model}, "\n".join(lines))


def _work(config: MlmConfig, worker: Worker) -> None:
    """One worker's part of a run; the first one writes."""
    torch.manual_seed(config.seed)
    encoder = resolve_encoder(config.encoder)
    corpus = load_corpus(config, encoder)
    model = make_model(config, corpus, encoder)
    fitting_length(config.max_length, config.max_length, model.encoder.config, load_tokenizer(encoder), config.encoder)
    identity = fingerprint(model)
    model = model.to(worker.device)
    run = Run(
        config=config,
        folder=Path(config.output),
        worker=worker,
        trained={"masked_lm": model},
        inputs={"encoder": identity} | {f"corpus file {path}": digest for path, digest in corpus.digests.items()},
    )
    state = train(run, [make_stage(config, corpus, model, worker)])
    if run.is_first:
        _save(config, model, encoder, state)


def load_corpus(config: MlmConfig, encoder: str) -> Corpus:
    """Read, split and tokenize the corpus files. Raises InputError, ModelError."""
    tokenizer = load_tokenizer(encoder, "--encoder")
    if tokenizer.mask_token_id is None:
        raise ModelError(f"--encoder {encoder}: its tokenizer has no mask_token, which a masked LM needs")
    cache = CorpusCache.of(config, config.held_out, tokenizer, tokenizer_fingerprint(tokenizer))
    digests = corpus_digests(config.corpus)
    training: list[TokenFile] = []
    held_out: list[TokenFile] = []
    for path in config.corpus:
        kept, apart = cache.get(path, digests[path])
        training.append(kept)
        held_out.append(apart)
        logger.info("corpus", extra={"fields": {"file": path, "lines": kept.num_lines, "tokens": len(kept.ids)}})
    return Corpus(
        names=config.corpus,
        digests=digests,
        train=training,
        held_out=held_out,
        vocabulary=Vocabulary.of(tokenizer),
    )


def make_model(config: MlmConfig, corpus: Corpus, encoder: str) -> TrainableMaskedLM:
    """The model before training. Uses torch's global random state. Raises ModelError, UsageError."""
    model = load_trainable(encoder, config.embedding_rank, config.adapters)
    if not model.has_head:
        model.set_unigram_bias(block for file in corpus.train for block in file.blocks())
    if config.start_from:
        start_from_delta(model, config.start_from)
    return model


def make_stage(config: MlmConfig, corpus: Corpus, model: TrainableMaskedLM, worker: Worker) -> Stage[MaskedBatch]:
    """The one stage of a run."""
    text = TextSource(
        files=corpus.train,
        weights=config.weights,
        vocabulary=corpus.vocabulary,
        max_length=config.max_length,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    masking = Masking(
        vocabulary=corpus.vocabulary,
        probability=config.mask_probability,
        max_length=config.max_length,
        seed=config.seed,
    )
    total = int(text.tokens_per_pass * config.epochs)
    return Stage(
        name="mlm",
        source=MaskedSource(text=text, masking=masking),
        budget=Tokens(total=min(total, config.max_tokens or total)),
        recipe=Recipe(
            schedule=plateau_schedule(config.lr, config.warm_up_share, config.decay_share),
            weight_decay=config.weight_decay,
            betas=BETAS,
            metrics_period_steps=METRICS_PERIOD_STEPS,
        ),
        losses=MaskedPrediction(model).losses,
        evaluation=Evaluation(
            scores=lambda: _held_out_scores(config, corpus, model, worker),
            num_due=every_tokens(config.evaluate_tokens),
        ),
    )


def _held_out_scores(config: MlmConfig, corpus: Corpus, model: TrainableMaskedLM, worker: Worker) -> Scores:
    """Scores by file name, of the files that have held-out lines."""
    wanted = config.evaluate_files or config.corpus
    scores: dict[str, Any] = {}
    for path, file in zip(corpus.names, corpus.held_out, strict=True):
        if path not in wanted:
            continue
        score = score_held_out(model, file, corpus.vocabulary, config.max_length, worker.dtype, worker.device)
        if score is not None:
            scores[Path(path).name] = asdict(score)
    return Scores(name="held_out", values=scores)


def _save(config: MlmConfig, model: TrainableMaskedLM, encoder: str, state: State) -> None:
    folder = Path(config.output) / "model"
    temporary = folder.with_name(folder.name + ".partial")
    plain = model.merged()
    plain.save_pretrained(temporary)
    load_tokenizer(encoder).save_pretrained(temporary)
    replace_folder(temporary, folder)
    if config.encoder == EMBEDDED and config.adapters:
        save_delta(model, folder.with_name(DELTA))
    result = RunResult(
        command="mlm",
        name=config.name,
        seed=config.seed,
        parameters=count_parameters(plain),
        held_out={name: MaskedAccuracy(**values) for name, values in state.scores.items()},
    )
    write_result(folder.parent, state.complete(result))
