"""Training throughput of a masked LM: tokens per second of `trainer mlm` compared with transformers' example with peft.

The peers are the loop of transformers' `run_mlm.py` with peft adapters of the same rank on the same layers, and the
same rows, learning rate and precision: once with texts concatenated and split into full rows (`group_texts`), once with
one text per row, padded to --max-length (`--line_by_line --pad_to_max_length`). They freeze the embeddings; `trainer
mlm` also trains a low-rank update of them. Padding is not counted. Contenders alternate in one process.

    python benchmarks/mlm.py --corpus FILE --threads 2
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertForMaskedLM, DataCollatorForLanguageModeling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.augment import peak_flops
from benchmarks.distill import measure
from shared.compute.hardware import resolve_dtype
from shared.compute.memory import keep_freed_memory
from shared.embedded import resolve_encoder
from trainer.data.corpus import read_lines
from trainer.data.loader import Loader
from trainer.mlm.config import MlmConfig
from trainer.mlm.model import LINEAR_LAYERS, load_trainable
from trainer.mlm.train import load_corpus, make_model, make_stage
from trainer.state import Run, Worker
from trainer.steps import make_optimizer, take_step

OURS, PEER = "trainer mlm", "run_mlm.py with peft"


def our_steps(options: argparse.Namespace, encoder: str) -> Iterator[int]:
    """Tokens of each step of the trainer's own loop."""
    config = MlmConfig(
        encoder=encoder,
        corpus=(options.corpus,),
        output=options.work,
        adapters=options.adapters,
        embedding_rank=options.embedding_rank,
        batch_size=options.batch_size,
        max_length=options.max_length,
        mask_probability=options.mask_probability,
        epochs=1000.0,
        loader_workers=options.loader_workers,
    )
    worker = Worker(device="cpu", dtype=resolve_dtype(options.dtype, "cpu"))
    corpus = load_corpus(config, encoder)
    model = make_model(config, corpus, encoder).train()
    stage = make_stage(config, corpus, model, worker)
    run = Run(config=config, folder=Path(options.work), worker=worker, trained={"masked_lm": model})
    optimizer = make_optimizer([model], stage.recipe)
    loader = Loader(source=stage.source, budget=stage.budget, num_processes=config.loader_workers)
    for step in loader.steps(run.state.cursor):
        run.state.count(step, take_step(run, stage, optimizer, step))
        yield step.num_tokens


def peer_steps(options: argparse.Namespace, encoder: str, rows_are: str, dtype: torch.dtype) -> Iterator[int]:
    """Tokens of each step of transformers' example with peft."""
    from peft import LoraConfig, get_peft_model

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    texts = list(read_lines(options.corpus))[: options.texts]
    if rows_are == "joined":
        joined = list(itertools.chain.from_iterable(tokenizer(texts, verbose=False)["input_ids"]))
        size = options.max_length
        rows = [{"input_ids": joined[start : start + size]} for start in range(0, len(joined) - size + 1, size)]
    else:
        encoded = tokenizer(texts, truncation=True, max_length=options.max_length, padding="max_length")
        rows = [
            {"input_ids": ids, "attention_mask": mask}
            for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=options.mask_probability)
    whole = BertForMaskedLM.from_pretrained(options.model)
    lora = LoraConfig(r=options.adapters, lora_alpha=options.adapters, target_modules=LINEAR_LAYERS)
    model: Any = get_peft_model(whole, lora).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4, fused=True)
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(rows))
        for start in range(0, len(rows) - options.batch_size + 1, options.batch_size):
            batch = collate([rows[index] for index in order[start : start + options.batch_size]])
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def flops_per_token(options: argparse.Namespace, encoder: str) -> float:
    """Matrix products of one step of `trainer mlm`, forward and backward, per token.

    Frozen weights: one product forward and one for the gradient of the input. A low-rank update: two products of two
    factors each for its gradients. The head runs only at masked tokens. Attention products are not counted, so the
    resulting utilisation is a lower bound.
    """
    config = load_trainable(encoder, 0, 0).encoder.config
    d, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    body = layers * (4 * d * d + 2 * d * ffn)
    adapters = layers * options.adapters * (4 * 2 * d + 2 * (d + ffn))
    head = config.vocab_size * (2 * d + 3 * options.embedding_rank) + 3 * d * d
    return float(2 * (2 * body + 2 * adapters + options.mask_probability * head))


def main() -> None:
    """Alternate between the contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="Text file, one passage per line, also .xz or .gz.")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--adapters", type=int, default=48)
    parser.add_argument("--embedding-rank", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--mask-probability", type=float, default=0.2)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--texts", type=int, default=4000, help="Lines that the peers train on.")
    parser.add_argument("--loader-workers", type=int, default=0, help="Loader processes of `trainer mlm`.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="Per contender and round.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    dtype = resolve_dtype(options.dtype, "cpu")
    encoder = resolve_encoder(options.encoder)
    with tempfile.TemporaryDirectory() as work:
        options.work, options.model = str(Path(work) / "out"), str(Path(work) / "model")
        load_trainable(encoder, 0, 0).merged().save_pretrained(options.model)
        peers = {f"{PEER}, padded": ("padded", dtype), f"{PEER}, joined": ("joined", dtype)}
        if dtype != torch.float32:
            peers[f"{PEER}, padded, fp32 (its default)"] = ("padded", torch.float32)
        contenders: dict[str, Callable[[], float]] = {
            name: measure(peer_steps(options, encoder, *how), options.seconds) for name, how in peers.items()
        }
        contenders[OURS] = measure(our_steps(options, encoder), options.seconds)
        for run in contenders.values():
            run()
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        peaks = []
        for _ in range(options.rounds):
            peaks.append(peak_flops(dtype))
            for name, run in contenders.items():
                rates[name].append(run())
    peak, flops = statistics.median(peaks), flops_per_token(options, encoder)
    ours = statistics.median(rates[OURS])
    shape = f"{options.batch_size} x {options.max_length} tokens"
    print(f"{options.threads} threads, {shape}, {dtype} unless it says otherwise;")
    print(f"measured matrix-multiply peak {peak / 1e9:,.0f} GFLOP/s\n")
    print("| | tokens/s (median) | `trainer mlm` is |\n|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {ours / statistics.median(values):.1f} x |")
    print(f"\n`trainer mlm` does {flops * ours / 1e9:,.0f} GFLOP/s, {flops * ours / peak:.0%} of the peak.")


if __name__ == "__main__":
    main()
