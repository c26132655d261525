"""Utilisation of the model while the job feeds it, and its throughput: on a GPU if there is one, else with a stub.

With a GPU: masked inputs per second and share of the card's peak for several batch sizes, next to a batch-1 loop and a
padded `transformers` batch; then the model's busy share in the job, for several numbers of workers. Without one: the
same share for a STUB that only waits (12, 50, 200 microseconds per input) and uses no CPU, like a GPU; and an
extrapolation to more cores.

    python benchmarks/gpu.py --rows 2048
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

N_A, K = 20, 15
BATCH_TOKENS = 16_384
SHARD_ROWS = 512
STUB_MICROSECONDS = (12, 50, 200)


class StubModel:
    """STUB: waits a given number of microseconds per input, and returns meaningless entries."""

    def __init__(self, lexicon: Any, microseconds: float) -> None:
        self.lexicon, self.microseconds = lexicon, microseconds
        self.seconds, self.num_inputs = 0.0, 0

    def rank(self, inputs: Any, _batches: Any, k: int, _excluded: Any) -> Any:
        """Wait, then return rankings."""
        import numpy as np

        from augment_service.engine.batches import Rankings

        count = len(inputs.positions)
        entries = np.arange(1996, len(self.lexicon.tokenizer))
        ids = entries[(np.arange(count * k).reshape(count, k) * 7) % len(entries)]
        scores = np.linspace(9, 1, k, dtype=np.float32)[None].repeat(count, 0)
        began = time.perf_counter()
        time.sleep(self.microseconds * len(inputs) / 1e6)
        self.seconds += time.perf_counter() - began
        self.num_inputs += len(inputs)
        return Rankings(ids, scores, inputs.first_position)


class TimedModel:
    """A masked LM that sums up its compute time."""

    def __init__(self, masked_lm: Any) -> None:
        self.lexicon, self._masked_lm = masked_lm.lexicon, masked_lm
        self.seconds, self.num_inputs = 0.0, 0

    def rank(self, inputs: Any, batches: Any, k: int, excluded: Any) -> Any:
        """As MaskedLM.rank."""
        began = time.perf_counter()
        found = self._masked_lm.rank(inputs, batches, k, excluded)
        self.seconds += time.perf_counter() - began
        self.num_inputs += len(inputs)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    options = parser.parse_args()
    import torch

    from benchmarks.augment import cpu_name, prepare
    from shared.compute.memory import keep_freed_memory

    keep_freed_memory()  # As in an actor.

    folder = prepare(options.work, 12, 768)
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    texts = [sentences[row % len(sentences)] for row in range(options.rows)]
    print(f"{cpu_name()}, {options.rows} film-review sentences, N_a {N_A}, K {K}, shards of {SHARD_ROWS} rows\n")
    if torch.cuda.is_available():
        on_a_gpu(folder, texts, options.workers)
    else:
        with_a_stub(texts, options.workers)


def with_a_stub(texts: Sequence[str], workers: Sequence[int]) -> None:
    """Tables for the STUB model."""
    from transformers import AutoTokenizer

    from augment_service.engine.lexicon import Lexicon
    from shared.embedded import resolve_encoder

    tokenizer = AutoTokenizer.from_pretrained(resolve_encoder("embedded"))
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
    lexicon = Lexicon(tokenizer, *ids, max_length=512)
    print("STUB of the model's time: the share of the time that it computes.\n")
    print("| workers | " + " | ".join(f"{one} µs per input" for one in STUB_MICROSECONDS) + " |")
    print("|---" * (1 + len(STUB_MICROSECONDS)) + "|")
    costs: list[tuple[float, float]] = []
    for count in workers:
        shares = []
        for microseconds in STUB_MICROSECONDS:
            share, own, feeders = feed(lambda us=microseconds: StubModel(lexicon, us), lexicon, texts, count)  # type: ignore[misc]
            shares.append(share)
            costs.append((own, feeders))
        print(f"| {count} | " + " | ".join(f"{one:.0%}" for one in shares) + " |", flush=True)
    own, feeders = min(one for one, _ in costs), min(two for _, two in costs)
    print(f"\nCPU time per input: {own:.1f} µs in the actor, {feeders:.1f} µs in the workers. From that, computed:\n")
    print("| cores per GPU | " + " | ".join(f"{one} µs per input" for one in STUB_MICROSECONDS) + " |")
    print("|---" * (1 + len(STUB_MICROSECONDS)) + "|")
    for cores in (2, 8, 16):
        slowest = max(own, feeders / (cores - 1))
        print(f"| {cores} | " + " | ".join(f"{min(one / slowest, 1):.0%}" for one in STUB_MICROSECONDS) + " |")


def feed(make_model: Callable[[], Any], lexicon: Any, texts: Sequence[str], count: int) -> tuple[float, float, float]:
    """Share of the time that the model is busy; CPU microseconds per input of this process and of the workers."""
    import pyarrow as pa

    from augment_service.engine.glove import GloveVectors
    from augment_service.job.feeders import Feeders, FeederWork
    from shared.inputs.rows import SourceRow
    from shared.params import AugmentParams
    from shared.schema import samples_schema

    schema = samples_schema(pa.int64(), [])
    rows = [SourceRow(row, text, None, row % 2) for row, text in enumerate(texts)]
    shards = [rows[start : start + SHARD_ROWS] for start in range(0, len(rows), SHARD_ROWS)]
    model = make_model()
    work = FeederWork(lexicon=lexicon, params=AugmentParams(n_a=N_A, k=K), emit="samples")
    group = Feeders(count, work, model, GloveVectors.load("embedded"))
    try:
        for shard in shards:
            group.table(shard, schema, BATCH_TOKENS)  # fills the caches
        model.seconds, model.num_inputs = 0.0, 0
        cpu_before = time.process_time(), sum(map(_cpu_seconds, group.pids))
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as two_at_once:
            list(two_at_once.map(lambda shard: group.table(shard, schema, BATCH_TOKENS), shards))
        wall = time.perf_counter() - began
        cpu = time.process_time() - cpu_before[0], sum(map(_cpu_seconds, group.pids)) - cpu_before[1]
    finally:
        group.close()
    return model.seconds / wall, 1e6 * cpu[0] / model.num_inputs, 1e6 * cpu[1] / model.num_inputs


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_a_gpu(folder: Path, texts: Sequence[str], workers: Sequence[int]) -> None:
    """Tables for the GPU of this machine."""
    import torch

    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.batches import plan_batches
    from augment_service.engine.glove import GloveVectors
    from augment_service.engine.masked_lm import MaskedLM
    from augment_service.plan.gpus import GPUS
    from shared.params import AugmentParams

    name = torch.cuda.get_device_name()
    masked_lm = MaskedLM.load(str(folder / "model"), "cuda", "auto")
    engine = AugmentEngine(masked_lm, GloveVectors.load("embedded"), AugmentParams(n_a=N_A, k=K))
    inputs, _ = engine.workload(list(texts))
    cost = masked_lm.cost()
    flops = sum(cost.encoder(len(one)) + cost.head for one in inputs)
    # The longest known name contained in the card's name: H100-PCIe before H100.
    known = [gpu for gpu in GPUS.values() if gpu.name.lower().replace("-", " ") in name.lower()]
    peak = max(known, key=lambda gpu: len(gpu.name)).bf16 if known else 0.0
    print(f"{name}, {masked_lm.dtype}, {len(inputs):,} masked inputs\n")
    print("| how | inputs/s | µs per input | share of peak |\n|---|---|---|---|")
    for batch_tokens in (1024, 4096, 16384, 32768, 65536):
        plan = plan_batches(inputs, batch_tokens)
        seconds = _best(lambda plan=plan: masked_lm.rank(plan.unique, plan.batches, K + 1, None))  # type: ignore[misc]
        of_peak = f"{flops / seconds / peak:.0%}" if peak else "unknown"
        rate = f"{len(inputs) / seconds:,.0f} | {1e6 * seconds / len(inputs):.1f}"
        print(f"| batches of {batch_tokens} tokens | {rate} | {of_peak} |", flush=True)
    few = inputs[:: max(len(inputs) // 512, 1)]
    for label, size in (("padded transformers batch of 64", 64), ("batch-1 loop", 1)):
        seconds = _best(lambda size=size: _padded(masked_lm, few, size))  # type: ignore[misc]
        print(f"| {label} | {len(few) / seconds:,.0f} | {1e6 * seconds / len(few):.1f} | |")
    print("\n| workers | share of the time that the model computes |\n|---|---|")
    for count in workers:
        share, _, _ = feed(lambda: TimedModel(masked_lm), masked_lm.lexicon, texts, count)
        print(f"| {count} | {share:.0%} |", flush=True)


def _padded(masked_lm: Any, inputs: Sequence[Any], size: int) -> None:
    """The usual method: padded batches through the model's own forward pass, all logits at the masked positions."""
    import torch

    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        longest = max(map(len, part))
        ids = torch.tensor([[*one.ids, *[0] * (longest - len(one))] for one in part], device="cuda")
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in part], device="cuda")
        with torch.inference_mode(), torch.autocast("cuda", masked_lm.dtype):
            logits = masked_lm._model(input_ids=ids, attention_mask=mask).logits
        rows = torch.arange(len(part), device="cuda")
        logits[rows, torch.tensor([one.positions[0] for one in part], device="cuda")].topk(K).indices.cpu()


def _best(run: Callable[[], object], rounds: int = 3) -> float:
    """Minimum seconds over some rounds, after a warm-up. Runs end with their results on the CPU."""
    run()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
