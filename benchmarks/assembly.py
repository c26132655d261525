"""Samples per second of everything except the models, on one core: words, inputs, draws, text, Arrow, commit.

Rankings and neighbours are prepared before the clock starts (random vocabulary entries), so the measured time is the
work that one core does to feed a GPU. The engine, the draws and the writer are the job's own.

CPU time is reported, because other work on the machine affects it little.

    python benchmarks/assembly.py --sentences 2048 --shard-rows 512
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

N_A, K = 20, 15


class GivenRankings:
    """Replaces the masked LM and answers immediately from prepared rankings."""

    def __init__(self, tokenizer: Any, num_sites: int) -> None:
        import numpy as np

        from augment_service.engine.lexicon import Lexicon

        ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
        self.lexicon = Lexicon(tokenizer, *ids, max_length=512)
        entries = np.random.default_rng(0).permutation(np.arange(1996, len(tokenizer)))
        self._ids = np.stack([np.roll(entries, 64 * site)[:64] for site in range(num_sites)])
        self._scores = np.linspace(9, 1, 64, dtype=np.float32)[None].repeat(num_sites, 0)

    def rank(self, inputs: Any, _batches: Any, k: int, _excluded: Any) -> Any:
        """One ranking per input and position."""
        from augment_service.engine.batches import Rankings

        count = len(inputs.positions)
        return Rankings(self._ids[:count, :k], self._scores[:count, :k], inputs.first_position)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=2048)
    parser.add_argument("--shard-rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import pyarrow as pa
    import torch
    from transformers import AutoTokenizer

    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from augment_service.job.assemble import sample_statistics, samples_table
    from benchmarks.augment import cpu_name, prepare
    from shared.compute.memory import keep_freed_memory
    from shared.embedded import resolve_encoder
    from shared.inputs.rows import SourceRow
    from shared.params import AugmentParams
    from shared.sampling import draw_samples
    from shared.schema import samples_schema
    from shared.shards import write_shard
    from shared.storage.store import open_store

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    keep_freed_memory()
    folder = prepare(options.work, 2, 128)
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    texts = [sentences[row % len(sentences)] for row in range(options.sentences)]
    rows = [SourceRow(row, text, None, row % 2) for row, text in enumerate(texts)]
    shards = [rows[start : start + options.shard_rows] for start in range(0, len(rows), options.shard_rows)]
    tokenizer = AutoTokenizer.from_pretrained(resolve_encoder("embedded"))
    given: Any = GivenRankings(tokenizer, 64 * options.shard_rows)
    engine = AugmentEngine(given, GloveVectors.load("embedded"), AugmentParams(n_a=N_A, k=K))
    engine.candidates(rows)  # fills the neighbour cache before the clock starts
    schema = samples_schema(pa.int64(), [])
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        seconds = {"words, inputs, candidate sets": 0.0, "draws": 0.0, "text and Arrow": 0.0, "file and commit": 0.0}
        num_samples = 0
        with tempfile.TemporaryDirectory(dir=options.work) as scratch:
            store = open_store(scratch)
            for number, shard in enumerate(shards):
                marks = [time.process_time()]
                found = engine.candidates(shard)
                marks.append(time.process_time())
                samples = draw_samples(found, engine.params)
                marks.append(time.process_time())
                table = samples_table(schema, shard, found, samples)
                statistics = sample_statistics(found, samples)
                marks.append(time.process_time())
                write_shard(store, number, table, len(shard), [], statistics)
                marks.append(time.process_time())
                for name, start, end in zip(list(seconds), marks, marks[1:], strict=False):
                    seconds[name] += end - start
                num_samples += len(samples)
        if not best or sum(seconds.values()) < sum(best.values()):
            best = seconds
    rate = num_samples / sum(best.values())
    lines = [
        f"{num_samples:,} samples of {len(rows):,} film-review sentences (N_a {N_A}, K {K}, shards of "
        f"{options.shard_rows} rows), one core of {cpu_name().partition(' of ')[2]}, best of {options.rounds}: "
        f"**{rate:,.0f} samples/s**",
        "",
        "| part | share of the time | microseconds per sample |",
        "|---|---|---|",
    ]
    for name, value in best.items():
        lines.append(f"| {name} | {value / sum(best.values()):.0%} | {1e6 * value / num_samples:.1f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
