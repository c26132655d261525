"""A masked LM: batches of token ids in, the K best vocabulary entries per wanted position out.

The encoder runs in the chosen precision. The vocabulary head always runs in fp32, because bf16 logits have too many
ties to be ranked. Ties are broken by the smaller id.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment_service.engine.batch_guard import BatchGuard
from augment_service.engine.batches import Ints, ModelInput, ModelInputs, Rankings, ranges
from augment_service.engine.encoder import PackedBatch, PackedEncoder, is_supported
from augment_service.engine.finite import check_scores
from augment_service.engine.flops import ModelCost, model_cost
from augment_service.engine.lexicon import Lexicon
from shared.compute.hardware import resolve_device, resolve_dtype
from shared.compute.linear import Linear
from shared.embedded import EMBEDDED
from shared.errors import ModelError
from shared.model_folder import (
    check_tokenizer_fits,
    check_tokenizer_is_fast,
    check_weights,
    model_folder,
    reading_model,
)
from shared.positions import longest_input

logger = logging.getLogger(__name__)

HEAD_ROWS, HEAD_ROWS_ON_CUDA = 256, 2048
"""Positions ranked at a time. Reading a ranking synchronises with the GPU, which should be rare."""
MIN_ROWS = 16
"""Matrix libraries use other kernels for very few rows, with different last digits. Padding to this many rows makes
results batch-invariant: they do not depend on what else is in the batch (decision 0013)."""
PIECES_MULTIPLE, WANTED_MULTIPLE = 32, 16
"""oneDNN compiles and caches a kernel for each number of rows. Padding tokens and wanted positions to multiples of
these bounds the memory of that cache and, for small models, saves a quarter of the time."""
_TIE_MARGIN = 8

_Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]


class MaskedLM:
    """A loaded masked LM with its tokenizer. Use `MaskedLM.load`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: str,
        dtype: torch.dtype,
        name: str,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.device, self.dtype, self.name = device, dtype, name
        self._on_cuda = device.startswith("cuda")
        self.guard = BatchGuard(observe, on_cuda=self._on_cuda)
        self._head_rows = HEAD_ROWS_ON_CUDA if self._on_cuda else HEAD_ROWS
        self._model = model.eval().to(device)
        self.vocab_size = int(model.config.vocab_size)
        self._head = _head_of(self._model)
        self._encoder = PackedEncoder(self._model, dtype) if is_supported(model) and self._head else None
        self.max_length = longest_input(model)
        self.lexicon = Lexicon(tokenizer, *_special_ids(tokenizer), self.max_length)
        self.has_segments = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1

    @classmethod
    def load(
        cls,
        path: str,
        device: str = "auto",
        dtype: str = "auto",
        num_threads: int | None = None,
        observe: Callable[[float], None] | None = None,
    ) -> MaskedLM:
        """Load from `embedded`, a folder or a hub id. Raises ModelError, UsageError.

        dtype: fp32, bf16, or auto (bf16 where the hardware supports it). num_threads: CPU threads of the whole process.
        observe: called with the seconds of each model batch.
        """
        from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        if num_threads:
            torch.set_num_threads(num_threads)
        device = resolve_device(device)
        precision = resolve_dtype(dtype, device)
        report: Mapping[str, Any] = {}
        if path == EMBEDDED:
            from shared.embedded.delta import embedded_masked_lm

            model, tokenizer = embedded_masked_lm()
        else:
            folder = model_folder(path, "--mlm")
            with reading_model(folder, "--mlm"):
                config = AutoConfig.from_pretrained(folder)
                _check_kind(path, config)
                model, report = AutoModelForMaskedLM.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    attn_implementation=_attention_of(config),
                )
                tokenizer = AutoTokenizer.from_pretrained(folder)
            _check_head(path, model, report)
            _check_tokenizer(path, tokenizer, model)
        check_weights(model, path, "--mlm", {**report, "missing_keys": ()})
        loaded = cls(model, tokenizer, device, precision, path, observe)
        loaded.check_output()
        return loaded

    def check_output(self) -> None:
        """Rank one masked position as a health check. Raises ModelError if the scores are not finite."""
        cls_id, sep_id, mask_id = _special_ids(self.tokenizer)
        with self.uncounted():
            self.rank([ModelInput((cls_id, mask_id, sep_id), (1,), 3)], [(0,)], 1, None)

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[BatchGuard]:
        """For batches outside the job: they are counted by a separate guard."""
        guard, self.guard = self.guard, BatchGuard(on_cuda=self._on_cuda)
        try:
            yield self.guard
        finally:
            self.guard = guard

    def fingerprint(self) -> str:
        """sha256 hex of weights and tokenizer, which decide the candidates; independent of where the files are."""
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + str(tuple(value.shape)).encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return digest.hexdigest()

    def cost(self) -> ModelCost:
        """Floating-point operations of one input."""
        return model_cost(self._model, last_layer_is_cut=self._encoder is not None)

    @torch.inference_mode()
    def rank(
        self,
        inputs: Sequence[ModelInput],
        batches: Sequence[Sequence[int] | Ints],
        k: int,
        excluded: NDArray[np.bool_] | None,
    ) -> Rankings:
        """The K best entries at each wanted position, one Ranking per input.

        batches: indices into `inputs`. excluded: (vocabulary,) bool, True for entries that are never returned, or None.
        """
        columns = ModelInputs.of(inputs)
        width = min(k, self.vocab_size)
        found = Rankings(
            np.zeros((len(columns.positions), width), np.int64),
            np.zeros((len(columns.positions), width), np.float32),
            columns.first_position,
        )
        penalty = None
        if excluded is not None:
            full = np.ones(self.vocab_size, np.bool_)
            full[: min(len(excluded), self.vocab_size)] = excluded[: self.vocab_size]
            penalty = self._on_device(np.where(full, -np.inf, 0.0).astype(np.float32))
        waiting: list[tuple[Ints, Tensor]] = []
        num_rows = 0
        for batch in batches:
            indices = np.asarray(batch, np.int64)
            states = self.guard.run(self._states, columns.take(indices))
            waiting.append((ranges(columns.first_position[indices], columns.num_positions[indices]), states))
            num_rows += len(states)
            if num_rows >= self._head_rows:
                self._finish(waiting, k, penalty, found)
                waiting, num_rows = [], 0
        self._finish(waiting, k, penalty, found)
        return found

    def _states(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Last hidden states at the wanted positions of the inputs, or logits if the head is not known."""
        columns = ModelInputs.of(inputs)
        if self._encoder is None:
            return self._own_forward(columns)
        num_wanted = len(columns.positions)
        return self._encoder(self._pack(columns, _fillers(columns, self.max_length)))[:num_wanted]

    def _pack(self, inputs: ModelInputs, fillers: ModelInputs) -> PackedBatch:
        parts = [inputs, fillers]
        lengths = np.concatenate([one.lengths for one in parts])
        starts = np.cumsum(lengths) - lengths
        ids = np.concatenate([one.ids for one in parts]).astype(np.int64)
        places = np.arange(len(ids)) - np.repeat(starts, lengths)
        first = np.repeat(np.concatenate([one.num_first_segment for one in parts]), lengths)
        owner = np.repeat(np.arange(len(lengths)), np.concatenate([one.num_positions for one in parts]))
        wanted = starts[owner] + np.concatenate([one.positions for one in parts])
        # RoBERTa has only one segment id.
        segments = ((places >= first) & self.has_segments).astype(np.int64)
        ids_t, segments_t, places_t, wanted_t = map(self._on_device, (ids, segments, places, wanted))
        return PackedBatch(
            ids=ids_t, segments=segments_t, places=places_t, lengths=tuple(lengths.tolist()), wanted=wanted_t
        )

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        """The array on the device; the copy to a GPU is asynchronous, from pinned memory."""
        values = torch.from_numpy(array)
        return values.pin_memory().to(self.device, non_blocking=True) if self._on_cuda else values.to(self.device)

    def _own_forward(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Forward pass of an architecture that PackedEncoder does not cover, for sequences of one length at a time.

        Returns last hidden states at the wanted positions, or logits if the head is not known.
        """
        inputs = list(inputs)
        parts: list[Tensor] = []
        start = 0
        while start < len(inputs):
            stop = start
            length = len(inputs[start])
            while stop < len(inputs) and len(inputs[stop]) == length:
                stop += 1
            # Padding rows have no wanted positions.
            missing = max(MIN_ROWS - (stop - start) * length, 0)
            group = [*inputs[start:stop]] + [_without_positions(inputs[start])] * missing
            ids = torch.tensor([one.ids for one in group], device=self.device)
            options: dict[str, Tensor] = {}
            if self.has_segments:
                segments = [[int(p >= one.num_first_segment) for p in range(len(one))] for one in group]
                options["token_type_ids"] = torch.tensor(segments, device=self.device)
            with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                if self._head:
                    states = self._model.base_model(input_ids=ids, **options).last_hidden_state
                else:
                    states = self._model(input_ids=ids, **options).logits
            parts += [states[row, list(one.positions)] for row, one in enumerate(group)]
            start = stop
        return torch.cat(parts)

    def _finish(self, waiting: Sequence[tuple[Ints, Tensor]], k: int, penalty: Tensor | None, found: Rankings) -> None:
        """Rank the pending states and write the results into their rows of `found`."""
        if not waiting:
            return
        states = torch.cat([states for _, states in waiting]).float()

        def ranked(part: Tensor) -> _Ranked:
            filled = torch.cat([part, part[-1:].expand(-len(part) % WANTED_MULTIPLE, -1)])
            logits = (self._head(filled) if self._head else filled)[: len(part)]
            return top_k(logits if penalty is None else logits + penalty, k)

        starts = range(0, len(states), self._head_rows)
        parts = [states[start : start + self._head_rows] for start in starts]
        ids, scores = _joined([self.guard.run_head(ranked, part, _joined) for part in parts])
        check_scores(self.name, states, scores)
        rows = np.concatenate([rows for rows, _ in waiting])
        found.ids[rows], found.scores[rows] = ids, scores


def _joined(parts: Sequence[_Ranked]) -> _Ranked:
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([scores for _, scores in parts])


def _fillers(inputs: ModelInputs, max_length: int) -> ModelInputs:
    """Inputs that pad tokens and wanted positions to their multiples; their results are discarded."""
    more_wanted = -len(inputs.positions) % WANTED_MULTIPLE
    missing = -len(inputs.ids) % PIECES_MULTIPLE or (PIECES_MULTIPLE if more_wanted else 0)
    fillers = []
    while missing:
        length = min(missing, max_length)
        fillers.append(ModelInput((int(inputs.ids[0]),) * length, (0,) * more_wanted, length))
        missing, more_wanted = missing - length, 0
    return ModelInputs.of(fillers)


def _without_positions(one: ModelInput) -> ModelInput:
    return ModelInput(one.ids, (), one.num_first_segment)


def top_k(logits: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(P, vocabulary) -> ids int64 and scores float32 (P, K), highest first, ties by smaller id."""
    width = min(k + _TIE_MARGIN, logits.shape[1])
    values, ids = (part.cpu().numpy() for part in logits.topk(width, dim=1))
    # A NaN would be sorted last and cut off unnoticed; as infinity it comes first, where the caller detects it.
    values = np.where(np.isnan(values), np.inf, values)
    order = np.lexsort((ids, -values), axis=1)
    values, ids = np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
    k = min(k, width)
    # A tie that extends past the margin may hide smaller ids: sort those rows in full.
    if width < logits.shape[1]:
        for row in np.flatnonzero((values[:, k - 1] == values[:, -1]) & np.isfinite(values[:, -1])):
            full = logits[row].cpu().numpy()
            best = np.lexsort((np.arange(len(full)), -full))[:k]
            ids[row, :k], values[row, :k] = best, full[best]
    return ids[:, :k].astype(np.int64), values[:, :k].astype(np.float32)


def _special_ids(tokenizer: Any) -> tuple[int, int, int]:
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
    if None in ids:
        raise ModelError("the tokenizer lacks a [CLS], [SEP] or [MASK] token, so it does not belong to a masked LM")
    return ids


def _head_of(model: Any) -> Any:
    """Function (P, H) -> (P, vocabulary) logits, or None if the architecture's head is not known."""
    kind = model.config.model_type
    if kind == "bert":
        # For this product, the largest of all, oneDNN takes half as long as MKL, see `Linear`.
        head, project = model.cls.predictions, Linear((model.cls.predictions.decoder,), torch.float32)
        return lambda states: project(head.transform(states))
    if kind in ("roberta", "xlm-roberta"):
        return model.lm_head
    if kind == "electra":
        return lambda states: model.generator_lm_head(model.generator_predictions(states))
    if kind == "distilbert":
        return lambda states: model.vocab_projector(
            model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
        )
    if kind == "modernbert":
        return lambda states: model.decoder(model.head(states))
    return None


def _check_kind(path: str, config: Any) -> None:
    names = config.architectures or []
    if any("Discriminator" in name or ("ForPreTraining" in name and config.model_type == "electra") for name in names):
        raise ModelError(f"--mlm {path} is an ELECTRA discriminator, which cannot predict words; use the generator")


def _check_head(path: str, model: Any, report: Any) -> None:
    """Reject a model whose head or layers are missing: transformers would initialise them randomly."""
    missing = sorted(set(report["missing_keys"]))
    head = [name for name in missing if not name.endswith(("decoder.weight", "decoder.bias", "position_ids"))]
    inside = next((name for name in head if name.startswith(f"{model.base_model_prefix}.")), None)
    if inside is not None:
        raise ModelError(f"--mlm {path} lacks weights such as {inside}")
    if head:
        raise ModelError(
            f"--mlm {path} has no masked-LM head ({head[0]} is not in its weights), so its words would be random. Use "
            "a masked LM such as google-bert/bert-base-uncased, --mlm embedded, or train a head: python -m trainer mlm"
        )


def _attention_of(config: Any) -> str:
    """Fused attention if the architecture supports it."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    kind = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"


def _check_tokenizer(path: str, tokenizer: Any, model: Any) -> None:
    """Reject a missing tokenizer: transformers would create an empty one, and every word would be unknown."""
    vocab_size = int(model.config.vocab_size)
    check_tokenizer_is_fast(tokenizer, path, "--mlm")
    check_tokenizer_fits(tokenizer, model.get_input_embeddings().weight.shape[0], path, "--mlm")
    if 2 * len(tokenizer) < vocab_size:
        raise ModelError(
            f"--mlm {path}: the tokenizer has {len(tokenizer)} tokens, but the model has {vocab_size}: tokenizer.json "
            "(or vocab.txt) is missing or belongs to another model; put the model's own in the folder"
        )
