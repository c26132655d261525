"""int8 for the masked LM on a CPU: its speed relative to fp32 and bf16, and its candidate overlap with fp32.

The engine's own encoder, with every matrix product of the layers in dynamic int8: weights quantized per output channel,
activations per tensor at run time (`torch.ops.quantized.linear_dynamic`). The head stays in fp32, as with bf16. Speed
is measured on a model of --layers x --hidden with random weights; overlap on the trained embedded masked LM, as the
share of fp32's K best entries that are among int8's K best. Rounds alternate, and the best of each counts.

    python benchmarks/int8.py                # with this processor's instructions
    python benchmarks/int8.py --avx2         # limited to AVX2 (respected by oneDNN and PyTorch, not by FBGEMM)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

K = 15
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


class Int8Linear:
    """y = activation(x W^T + b) with int8 products."""

    def __init__(self, parts: Sequence[Any], activation: Any, kernels: str) -> None:
        import torch

        weight = torch.cat([one.weight.data for one in parts])
        bias = torch.cat([one.bias.data for one in parts])
        torch.backends.quantized.engine = kernels
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-8).double()
        zeros = torch.zeros_like(scales, dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantized, bias)
        self._activation = activation

    def __call__(self, states: Any) -> Any:
        import torch

        result = torch.ops.quantized.linear_dynamic(states.contiguous(), self._packed)
        return result if self._activation is None else self._activation(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--sentences", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernels", nargs="+", default=["onednn", "fbgemm"])
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--profile", action="store_true", help="also print where the time of fp32 goes")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    options = parser.parse_args()
    if options.avx2 and os.environ.get("ONEDNN_MAX_CPU_ISA") != "AVX2":
        raise SystemExit(subprocess.run([sys.executable, *sys.argv], env=os.environ | AVX2, check=False).returncode)

    import json

    import torch

    warnings.filterwarnings("ignore", category=UserWarning, module=__name__)
    from benchmarks.augment import cpu_name, prepare
    from shared.compute.hardware import has_bf16_kernels

    torch.set_num_threads(1)
    folder = prepare(options.work, options.layers, options.hidden)
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))[: options.sentences]
    kernels = [one for one in options.kernels if one in torch.backends.quantized.supported_engines]
    with_bf16 = has_bf16_kernels()
    print(f"## int8, {date.today()}, 1 thread, {cpu_name()}")
    print(f"`python benchmarks/int8.py {' '.join(sys.argv[1:])}`\n")
    print("| products | inputs/s | relative to fp32 | best entry kept | K best kept |\n|---|---|---|---|---|")
    random = variants(str(folder / "model"), kernels, with_bf16)
    rates = best_rates(random, sentences, options.rounds)
    embedded = {name: answers(ask, sentences) for name, ask in variants("embedded", kernels, with_bf16).items()}
    expected = embedded["fp32"]
    for name, rate in rates.items():
        first, kept = agreement(expected, embedded[name])
        print(f"| {name} | {rate:,.0f} | {rate / rates['fp32']:.2f} x | {first:.1%} | {kept:.1%} |")
    if options.profile:
        print(f"\nfp32: {where_time_goes(random['fp32'], sentences)}")


def variants(model: str, kernels: Sequence[str], with_bf16: bool) -> dict[str, Any]:
    """The model with each kind of matrix product."""
    from augment_service.engine.masked_lm import MaskedLM

    found = {"fp32": MaskedLM.load(model, "cpu", "fp32", 1)}
    if with_bf16:
        found["bf16"] = MaskedLM.load(model, "cpu", "bf16", 1)
    for one in kernels:
        masked_lm = MaskedLM.load(model, "cpu", "fp32", 1)
        to_int8(masked_lm, one)
        found[f"int8 ({one})"] = masked_lm
    return found


def to_int8(masked_lm: Any, kernels: str) -> None:
    """Replace the products of every layer of a BERT."""
    import torch.nn.functional as functional

    def products(*parts: Any, activation: Any = None) -> Int8Linear:
        return Int8Linear(parts, activation, kernels)

    layers = zip(masked_lm._encoder._layers, masked_lm._model.base_model.encoder.layer, strict=True)
    masked_lm._encoder._layers = [
        replace(
            packed,
            qkv=products(plain.attention.self.query, plain.attention.self.key, plain.attention.self.value),
            output=products(plain.attention.output.dense),
            up=products(plain.intermediate.dense, activation=functional.gelu),
            down=products(plain.output.dense),
        )
        for packed, plain in layers
    ]


def where_time_goes(masked_lm: Any, sentences: Sequence[str]) -> str:
    """The largest operators' shares of the total operator time."""
    from torch.profiler import ProfilerActivity, profile

    inputs, batches = asked(masked_lm, sentences)
    with profile(activities=[ProfilerActivity.CPU]) as run:
        masked_lm.rank(inputs, batches, K, None)
    spent = sorted(((one.self_cpu_time_total, one.key) for one in run.key_averages()), reverse=True)
    total = sum(seconds for seconds, _ in spent)
    return ", ".join(f"{name} {seconds / total:.1%}" for seconds, name in spent[:10])


def asked(masked_lm: Any, sentences: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Inputs with each single-token word of each sentence masked, and batches of 1,024 tokens."""
    from augment_service.engine.batches import ModelInput, plan_batches
    from augment_service.engine.words import WordSplitter, may_replace

    lexicon, inputs = masked_lm.lexicon, list[ModelInput]()
    for words in WordSplitter(lexicon.tokenizer).split(sentences):
        ids = [lexicon.cls_id, *(token for word in words for token in word.piece_ids), lexicon.sep_id]
        place = 1
        for word in words:
            if word.is_single_piece and may_replace(word, "reference"):
                masked = [*ids[:place], lexicon.mask_id, *ids[place + 1 :]]
                inputs.append(ModelInput(tuple(masked), (place,), len(masked)))
            place += len(word.piece_ids)
    plan = plan_batches(inputs, 1024)
    return list(plan.unique), list(plan.batches)


def answers(masked_lm: Any, sentences: Sequence[str]) -> list[Sequence[int]]:
    """The K best whole words of each masked input."""
    inputs, batches = asked(masked_lm, sentences)
    found = masked_lm.rank(inputs, batches, K, ~masked_lm.lexicon.vocabulary.is_whole_word)
    return [found[index].ids[0].tolist() for index in range(len(inputs))]


def agreement(expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Share of inputs with the same best entry, and share of the K best that are kept."""
    pairs = list(zip(expected, found, strict=True))
    first = sum(one[0] == other[0] for one, other in pairs) / len(pairs)
    return first, sum(len({*one} & {*other}) for one, other in pairs) / (K * len(pairs))


def best_rates(models: dict[str, Any], sentences: Sequence[str], rounds: int) -> dict[str, float]:
    """Best inputs per second of each model."""
    inputs, batches = asked(models["fp32"], sentences)
    seconds = {name: float("inf") for name in models}
    for number in range(1 + rounds):
        for name, one in models.items():
            began = time.perf_counter()
            one.rank(inputs, batches, K, None)
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return {name: len(inputs) / took for name, took in seconds.items()}


if __name__ == "__main__":
    main()
