"""Training throughput of a student: samples per second of `trainer task` relative to the reference's loop.

The reference's loop is reimplemented here: every text padded to --max-length, fp32, scores and hidden states of every
layer of both models kept, the teacher run again in the prediction stage, data prepared beforehand (which the reference
also does outside its loop). Ours is the trainer's own loader, stages and step, from shards on disk.

    python benchmarks/distill.py --augmented OUT --teacher DIR --student 3,84,336,12 --threads 2

With --avx2, PyTorch and oneDNN are limited to AVX2, as on processors without AVX-512. With --profile, it prints a
breakdown of our steps' CPU time instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from shared.compute.hardware import has_bf16_kernels
from shared.compute.memory import keep_freed_memory
from trainer.config import TaskConfig
from trainer.data.augmented import open_augmented
from trainer.data.batches import Batch
from trainer.data.budget import Epochs
from trainer.data.loader import Cursor, Loader
from trainer.data.stream import ShardStream
from trainer.data.tasks import sequence_length
from trainer.distill import IntermediateDistillation, PredictionDistillation
from trainer.evaluation import in_precision
from trainer.frozen import freeze
from trainer.models import load_classifier, load_tokenizer, teacher_spec
from trainer.recipe import Recipe, linear_schedule
from trainer.steps import make_optimizer
from trainer.student import make_student

STAGES = ("intermediate", "prediction")
RECIPE = Recipe(schedule=linear_schedule(1e-4, 0.1), weight_decay=0.01)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OTHERS = "others"
KINDS = {
    "products": ("mm", "linear", "matmul"),
    "attention": ("attention", "softmax"),
    "activations and norms": ("gelu", "norm", "tanh", "dropout", "bernoulli"),
    "optimizer": ("Optimizer", "adam", "foreach"),
    OTHERS: (),
}
"""Kind of operation -> fragments of operator names; the first match wins."""


class Setting:
    """Models and data of one contender."""

    def __init__(self, options: argparse.Namespace, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.options, self.dtype = options, dtype
        self.augmented = open_augmented(options.augmented, 0.0)
        self.teacher = load_classifier(options.teacher)
        self.spec = teacher_spec(self.teacher, None, options.teacher)
        self.length = sequence_length(options.max_length, options.pairs)
        config = TaskConfig(
            task="SST-2",
            augmented=options.augmented,
            teacher=options.teacher,
            student=options.student,
            dev="",
            output="",
        )
        student = make_student(config, self.teacher.bert, self.spec.num_logits, load_tokenizer(options.teacher))
        self.student, self.projections, self.mapping = student.model, student.projections, student.mapping
        self.teacher = in_precision(self.teacher.eval().requires_grad_(False), dtype)
        self.student.train()
        self.optimizer = make_optimizer([self.student, self.projections], RECIPE)
        self.pad_id = self.student.config.pad_token_id

    def loader(self) -> Loader[Batch]:
        """The trainer's own loader, with one worker process."""
        stream = ShardStream(
            augmented=self.augmented,
            spec=self.spec,
            tokenizer=load_tokenizer(self.options.teacher),
            max_length=self.length,
            batch_size=self.options.batch_size,
            window_shards=4,
            seed=0,
            follow_timeout=0.0,
            pad_id=self.pad_id,
        )
        return Loader(source=stream, budget=Epochs(total=1000.0), num_processes=1)

    def update(self, loss: Tensor) -> None:
        """Backward pass and optimizer, as in trainer.steps."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def ours(setting: Setting, stage: str) -> tuple[Iterator[int], Loader[Batch]]:
    """Rows per step of the trainer's own loop."""
    freeze(setting.teacher.bert)
    intermediate = IntermediateDistillation(
        teacher=setting.teacher.bert,
        student=setting.student.bert,
        projections=setting.projections,
        mapping=setting.mapping,
    )
    prediction = PredictionDistillation(
        teacher=setting.teacher,
        student=setting.student,
        is_regression=setting.spec.labels is None,
        temperature=1.0,
    )
    losses = {"intermediate": intermediate.losses, "prediction": prediction.losses}[stage]
    loader = setting.loader()

    def steps() -> Iterator[int]:
        for step in loader.steps(Cursor()):
            for part in step.parts:
                with torch.autocast("cpu", setting.dtype, enabled=setting.dtype != torch.float32):
                    total = torch.stack(list(losses(part).values())).sum()
                setting.update(total)
            yield step.num_rows

    return steps(), loader


def reference(setting: Setting, stage: str) -> Iterator[int]:
    """Rows per step of the reference's loop, from prepared tensors."""
    batches = []
    for step in itertools.islice(setting.loader().steps(Cursor()), setting.options.reference_steps):
        part = step.parts[0]
        missing = setting.length - part.input_ids.shape[1]
        columns = ((part.input_ids, setting.pad_id), (part.token_type_ids, 0), (part.mask, False))
        ids, types, mask = (functional.pad(tensor, (0, missing), value=value) for tensor, value in columns)
        batches.append((ids, types, mask))
    for ids, types, mask in itertools.cycle(batches):
        own_states, own_scores, own_logits = _all_layers(setting.student, ids, types, mask)
        with torch.no_grad():
            states, scores, logits = _all_layers(setting.teacher, ids, types, mask)
        if stage == "intermediate":
            loss = torch.zeros(())
            w_e, w_h = setting.projections.w_e, setting.projections.w_h(len(setting.mapping))
            for m, layer in enumerate(setting.mapping, start=1):
                # The reference zeroes the masked scores of both models and averages over all scores.
                loss = loss + functional.mse_loss(own_scores[m - 1], scores[layer - 1])
                loss = loss + functional.mse_loss(w_h[m - 1](own_states[m]), states[layer])
            loss = loss + functional.mse_loss(w_e(own_states[0]), states[0])
        else:
            loss = -(functional.softmax(logits, -1) * functional.log_softmax(own_logits, -1)).mean()
        setting.update(loss)
        yield len(ids)


def _all_layers(model: Any, ids: Tensor, types: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Hidden states and scores of every layer, and logits, as the reference's modified BERT returns them."""
    states = model.bert.embeddings(input_ids=ids, token_type_ids=types)
    additive = torch.where(mask, 0.0, -10000.0)[:, None, None, :]
    hidden, every_score = [states], []
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        shape = (*states.shape[:-1], attention.num_attention_heads, attention.attention_head_size)
        query, key, value = (
            linear(states).view(shape).transpose(1, 2) for linear in (attention.query, attention.key, attention.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(attention.attention_head_size) + additive
        every_score.append(torch.where(scores <= -1e2, torch.zeros_like(scores), scores))
        context = attention.dropout(scores.softmax(-1)) @ value
        mixed = layer.attention.output(context.transpose(1, 2).reshape(states.shape), states)
        states = layer.feed_forward_chunk(mixed)
        hidden.append(states)
    logits = model.classifier(model.dropout(model.bert.pooler(states)))
    return hidden, every_score, logits


def measure(steps: Iterator[int], seconds: float) -> Callable[[], float]:
    """A function that runs for about `seconds` and returns rows per second."""

    def run() -> float:
        rows, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            rows += next(steps)
        return rows / (time.perf_counter() - began)

    return run


def show_profile(options: argparse.Namespace) -> None:
    """Print each kind of operation's share of CPU time, for our steps in this machine's best precision."""
    dtype = torch.bfloat16 if has_bf16_kernels() else torch.float32
    for stage in STAGES:
        steps, _ = ours(Setting(options, dtype), stage)
        for _ in range(4):
            next(steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(options.profile):
                next(steps)
        shares = dict.fromkeys(KINDS, 0.0)
        for one in profiler.key_averages():
            kind = next((kind for kind, parts in KINDS.items() if any(part in one.key for part in parts)), OTHERS)
            shares[kind] = shares.get(kind, 0.0) + one.self_cpu_time_total
        total = sum(shares.values())
        print(f"{stage}, {str(dtype).removeprefix('torch.')}, batch {options.batch_size}, {options.profile} steps:")
        print(", ".join(f"{name} {value / total:.1%}" for name, value in shares.items()))


def main() -> None:
    """Alternate between the contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--augmented", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", default="3,84,336,12")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=None)
    parser.add_argument("--pairs", action="store_true", help="Texts come in pairs: length 128.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="Per contender and round.")
    parser.add_argument("--reference-steps", type=int, default=16, help="Batches that the reference cycles through.")
    parser.add_argument("--output", type=Path, default=None, help="JSON file with every measurement.")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--profile", type=int, metavar="STEPS", default=0)
    options = parser.parse_args()
    if options.avx2 and os.environ.get("ATEN_CPU_CAPABILITY") != "avx2":
        # Read when PyTorch is loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | AVX2)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.profile:
        show_profile(options)
        return
    results: dict[str, dict[str, list[float]]] = {}
    waits: dict[str, float] = {}
    for stage in STAGES:
        contenders: dict[str, Callable[[], float]] = {}
        loaders: dict[str, Loader[Batch]] = {}
        fp32 = Setting(options, torch.float32)
        contenders["reference"] = measure(reference(fp32, stage), options.seconds)
        for name, dtype in PRECISIONS.items():
            if dtype == torch.bfloat16 and not has_bf16_kernels():
                continue
            steps, loader = ours(Setting(options, dtype), stage)
            contenders[name], loaders[name] = measure(steps, options.seconds), loader
        for run in contenders.values():
            run()  # Warm-up: processes start, first windows are prepared.
        for loader in loaders.values():
            loader.wait_seconds = 0.0
        results[stage] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, run in contenders.items():
                results[stage][name].append(run())
        for name, loader in loaders.items():
            waits[f"{stage} {name}"] = loader.wait_seconds / (options.rounds * options.seconds)
    print(f"{options.threads} threads, batch {options.batch_size}, student {options.student}\n")
    print("| stage | contender | samples/s (median) | x the reference | model waited for data |\n|---|---|---|---|---|")
    for stage, table in results.items():
        base = statistics.median(table["reference"])
        for name, rates in table.items():
            rate = statistics.median(rates)
            wait = waits.get(f"{stage} {name}")
            waited = "" if wait is None else f"{wait:.1%}"
            print(f"| {stage} | {name} | {rate:,.0f} | {rate / base:.1f} | {waited} |")
    if options.output:
        options.output.write_text(
            json.dumps({"results": results, "waits": waits, "options": vars(options)}, default=str)
        )


if __name__ == "__main__":
    main()
