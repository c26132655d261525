"""Data preparation throughput: tokens per second and core from shards to batches, by epoch and number of ranks.

`without` prepares every window from the shards in every epoch, in full on every rank, like versions before the token
cache. `cache` tokenizes each shard once; ranks share the work and build only their own rows. The time is that of a
loader process for an epoch; each rank is a separate process, and all run at once.

    python benchmarks/prepare.py --rows 20000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 3


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="source rows; each has --n-a samples")
    parser.add_argument("--n-a", type=int, default=3)
    parser.add_argument("--emit", choices=("samples", "candidates"), default="samples")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        print(json.dumps(_measure(**options.rank)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_shards(folder, options)
        print("| | ranks | epoch 1 | epoch 2 | epoch 3 | epoch 2, against without |\n|---|---:|---:|---:|---:|---:|")
        for world in (1, 2):
            found = {kind: _ranks(folder, world, kind) for kind in ("without", "cache")}
            for kind, rates in found.items():
                cells = " | ".join(f"{rate / 1e6:.2f} M" for rate in rates)
                print(f"| {kind} | {world} | {cells} | {rates[1] / found['without'][1]:.1f} × |", flush=True)


def _make_shards(folder: Path, options: argparse.Namespace) -> None:
    from tests.support.distillation import Output
    from tests.support.models import save_random_model

    save_random_model("bert-uncased", folder / "tokenizer")
    output = Output(folder / "augmented", options.rows, options.emit, options.n_a, rows_per_shard=1000)
    output.finish()


def _ranks(folder: Path, world: int, kind: str) -> list[float]:
    """Tokens per second of each epoch, summed over concurrent ranks; only a rank's own tokens count."""
    processes = []
    for rank in range(world):
        given = json.dumps({"folder": str(folder), "rank": rank, "world": world, "kind": kind})
        command = [sys.executable, __file__, "--rank", given]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    rates = [json.loads(process.communicate()[0]) for process in processes]
    return [sum(epoch) / world for epoch in zip(*rates, strict=True)]


def _measure(folder: str, rank: int, world: int, kind: str) -> list[float]:
    """The rank's own tokens per second of CPU time, for each epoch."""
    from trainer.data.augmented import open_augmented
    from trainer.data.stream import ShardStream
    from trainer.data.tasks import glue_spec
    from trainer.data.token_cache import TokenCache
    from trainer.models import load_tokenizer, tokenizer_fingerprint

    tokenizer = load_tokenizer(f"{folder}/tokenizer")
    cache = {"cache": TokenCache(folder=f"{folder}/cache-{world}", max_bytes=2**40)} if kind == "cache" else {}
    options: dict[str, Any] = {"rank": rank, "world": world, **cache} if cache else {}
    stream = ShardStream(
        augmented=open_augmented(f"{folder}/augmented", 1.0),
        spec=glue_spec("SST-2"),
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_fingerprint(tokenizer),
        max_length=64,
        batch_size=32,
        window_shards=8,
        seed=0,
        follow_timeout=1.0,
        pad_id=0,
        **options,
    )
    rates = []
    for epoch in range(EPOCHS):
        began, tokens = time.process_time(), 0
        for number in range(stream.num_windows(epoch)):
            window = stream.prepare(epoch, number)
            own = window.only(rank, world, 1) if cache else window.only(0, 1, 1)
            tokens += len(own.pieces.ids) // (1 if cache else world)
        rates.append(tokens / (time.process_time() - began))
    return rates


if __name__ == "__main__":
    main()
