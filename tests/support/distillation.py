"""Teachers, augmented outputs and corpora that are small, real and made without Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers

from augment_service.job.assemble import candidates_table, sample_statistics, samples_table
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.inputs.rows import SourceRow
from shared.manifest import JobConfig, Manifest, ShardPlan, write_or_check
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.schema import candidates_schema, samples_schema
from shared.shards import write_shard
from shared.storage.store import LocalStore
from shared.success import write_success
from shared.totals import Totals
from tests.support.models import save_random_model
from trainer.data.batches import to_offsets
from trainer.data.corpus import Vocabulary
from trainer.data.text import TextSource
from trainer.data.token_file import TokenFile

ADJECTIVES = ("good", "great", "bad", "terrible", "small", "lazy", "quick", "brown")
NOUNS = ("movie", "plot", "ending", "fox", "dog", "cat", "river")
ROWS_PER_SHARD = 6
VOCABULARY = Vocabulary(size=1000, cls_id=1, sep_id=2, pad_id=0, mask_id=3, sentence_end_ids=(7,), first_word_id=4)


def save_teacher(folder: Path, layers: int = 4, hidden: int = 32, heads: int = 4, labels: int = 2) -> Path:
    """A random BERT sequence classifier whose logits depend on the text; returns the folder."""
    tokenizer_folder = save_random_model("bert-uncased", folder.with_name(folder.name + "-tokenizer"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(11)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=labels,
        id2label={index: str(index) for index in range(labels)} if labels > 1 else None,
    )
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_other_teacher(kind: str, folder: Path, labels: Sequence[str] = ("0", "1")) -> Path:
    """A random classifier of another architecture (roberta, deberta-v2), its tokenizer too; returns the folder."""
    tokenizers = {"roberta": "roberta", "deberta-v2": "xlm-roberta"}
    tokenizer_folder = save_random_model(tokenizers[kind], folder.with_name(folder.name + "-tokenizer"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(12)
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
        type_vocab_size=1 if kind == "roberta" else 0,
        pad_token_id=tokenizer.pad_token_id,
        relative_attention=kind == "deberta-v2",
        pos_att_type=["p2c", "c2p"],
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def source_rows(count: int) -> list[SourceRow]:
    """Sentences of several lengths with labels 0 and 1."""
    rows = []
    for index in range(count):
        words = [
            ADJECTIVES[index % 8],
            NOUNS[index % 7],
            *("and a " + NOUNS[(index + k) % 7] for k in range(index % 5)),
        ]
        rows.append(SourceRow(index, f"the {' '.join(words)}", None, index % 2))
    return rows


def candidates_of(row: SourceRow) -> RowCandidates:
    """Candidate sets for the first two words after `the`."""
    sites, place = [], 4
    for word in row.text_a[4:].split()[:2]:
        pool = tuple(one for one in ADJECTIVES + NOUNS if one != word)[:5]
        sites.append(Site(place, place + len(word), word, "mlm", pool, tuple(float(-rank) for rank in range(5))))
        place += len(word) + 1
    return RowCandidates(row.source_id, TextCandidates(row.text_a, tuple(sites)))


class Output:
    """An augmentation output whose shards can be committed one by one, as a running job does.

    more: columns of the input that are copied along, one row per source row.
    """

    def __init__(
        self,
        folder: Path,
        num_rows: int = 40,
        emit: str = "samples",
        n_a: int = 3,
        rows_per_shard: int = ROWS_PER_SHARD,
        more: pa.Table | None = None,
        **options: Any,
    ) -> None:
        self.store = LocalStore(str(folder))
        self.params = AugmentParams(n_a=n_a, seed=5)
        self.emit = emit
        make_schema = candidates_schema if emit == "candidates" else samples_schema
        self.schema: pa.Schema = make_schema(pa.int64(), [] if more is None else list(more.schema))
        rows = source_rows(num_rows)
        if more is not None:
            rows = [replace(row, rest=tuple(one.values())) for row, one in zip(rows, more.to_pylist(), strict=True)]
        self.shards = [rows[start : start + rows_per_shard] for start in range(0, num_rows, rows_per_shard)]
        manifest = Manifest(
            config=JobConfig(**self.params.model_dump(mode="json") | {"emit": emit, "task": None} | options),
            inputs=(),
            models={},
            plan=ShardPlan.cut(num_rows, rows_per_shard),
            schema=tuple(f"{one.name}: {one.type}" for one in self.schema),
        )
        write_or_check(self.store, manifest)

    def commit(self, shard: int) -> None:
        """Write one shard."""
        rows = self.shards[shard]
        found = [candidates_of(row) for row in rows]
        samples = draw_samples(found, self.params)
        if self.emit == "candidates":
            table = candidates_table(self.schema, rows, found)
        else:
            table = samples_table(self.schema, rows, found, samples)
        write_shard(self.store, shard, table, len(rows), [], sample_statistics(found, samples))

    def finish(self) -> Output:
        """Commit every shard that is missing."""
        for shard in range(len(self.shards)):
            self.commit(shard)
        write_success(self.store, Totals())
        return self


def text_source(
    lines: Sequence[int], *, max_length: int, batch_size: int, seed: int, weights: Sequence[float] = (1.0,)
) -> TextSource:
    """A `TextSource` over one file with lines of the given numbers of random tokens."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(VOCABULARY.first_word_id, VOCABULARY.size, sum(lines), dtype=np.int32)
    return TextSource(
        files=[TokenFile(ids=ids, offsets=to_offsets(lines))],
        weights=weights,
        vocabulary=VOCABULARY,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
    )


def save_dev(path: Path, count: int = 16) -> Path:
    """Write a labelled TSV in SST-2's layout; returns the path."""
    lines = [f"{row.text_a}\t{row.label}" for row in source_rows(count)]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return path


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's metrics, without fields that depend on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]
