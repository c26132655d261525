"""Sentences per second of this engine compared with nlpaug, farm-haystack and a batch-1 loop, in one run, as ratios.

All contenders get the same model files, N_a, K and P_t. Each runs in its own process, one after another. The engine
augments --sentences sentences. The others' time per sentence does not depend on the number of sentences, so they
augment only a subset, evenly spread over lengths (--oracle-sentences, --nlpaug-sentences). The model has random
weights, which do not affect speed. Peers run in virtualenvs that are created on first use.

    python benchmarks/augment.py --layers 12 --hidden 768 --threads 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PEERS = {
    "nlpaug": ["torch==2.13.0", "numpy<2", "transformers==4.46.3", "nlpaug==1.1.11", "gensim", "requests"],
    "haystack": ["torch==2.13.0", "numpy<2", "setuptools<81", "transformers==4.46.3", "farm-haystack==1.26.4.post0"],
}
N_A, K, P_T = 20, 15, 0.4
NAMES = {
    "engine-bf16": "this engine, bf16",
    "engine-fp32": "this engine, fp32",
    "engine-bf16-unmasked": "this engine, bf16, `unmasked`",
    "oracle": "batch-1 loop, fp32 (as in the reference)",
    "haystack": "farm-haystack 1.26.4",
    "nlpaug": "nlpaug 1.1.11",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--sentences", type=int, default=64, help="for the engine")
    parser.add_argument("--oracle-sentences", type=int, default=16, help="for the batch-1 loop and farm-haystack")
    parser.add_argument("--nlpaug-sentences", type=int, default=8)
    parser.add_argument("--contenders", nargs="+", default=list(NAMES))
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.work, options.sentences, options.threads[0])))
        return
    from shared.compute.hardware import has_bf16_kernels

    folder = prepare(options.work, options.layers, options.hidden)
    tables = []
    kinds = ("bf16", "fp32") if has_bf16_kernels() else ("fp32",)
    contenders = [name for name in options.contenders if "bf16" not in name or "bf16" in kinds]
    for threads in options.threads:
        peaks = {kind: run_one(f"peak-{kind}", folder, 0, threads)["flops"] for kind in kinds}
        results = {}
        for name in contenders:
            count = {"oracle": options.oracle_sentences, "haystack": options.oracle_sentences}.get(
                name, options.nlpaug_sentences if name == "nlpaug" else options.sentences
            )
            results[name] = run_one(name, folder, count, threads, options.sentences)
            print(f"{threads} threads  {name}: {results[name]}", file=sys.stderr, flush=True)
        tables.append(table(results, peaks, threads))
    heading = f"{options.layers} layers x {options.hidden}, {date.today()}, {cpu_name()}"
    command = "python benchmarks/augment.py " + " ".join(sys.argv[1:])
    print(f"## {heading}\n`{command}`\n\nN_a {N_A}, K {K}, P_t {P_T}, film-review sentences.\n\n" + "\n".join(tables))


def prepare(work: Path, layers: int, hidden: int) -> Path:
    """Model, vectors and sentences that all contenders share."""
    folder = work / f"{layers}x{hidden}"
    if (folder / "sentences.json").exists():
        return folder
    import torch
    import transformers

    from deploy.demo.reviews import review_sentences
    from shared.embedded import resolve_encoder

    sentences = review_sentences(work / "data" / "reviews.csv")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_encoder("embedded"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden // 64, 1),
        intermediate_size=4 * hidden,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    # Also in the format of the peers' older transformers version.
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    (folder / "model" / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    vocabulary = list(dict.fromkeys(" ".join(sentences).lower().split()))[:10_000]
    rows_text = [word + " " + " ".join(f"{one:.4f}" for one in torch.randn(50).tolist()) for word in vocabulary]
    (folder / "glove.txt").write_text("\n".join(rows_text) + "\n", encoding="utf-8")
    middle = [one for one in sentences if 8 <= len(one.split()) <= 30][:2000]
    (folder / "sentences.json").write_text(json.dumps(middle), encoding="utf-8")
    return folder


def run_one(name: str, folder: Path, count: int, threads: int, out_of: int = 0) -> dict[str, Any]:
    """Run one contender in its own process with `threads` threads, on `count` of the first `out_of` sentences."""
    if count:
        write_part(folder, count, out_of)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if name in PEERS:
        python = peer_python(folder.parent, name)
        script = str(ROOT / "benchmarks" / "peers" / f"{name}_peer.py")
        command = [str(python), script, str(folder), str(count), str(threads), str(N_A), str(K), str(P_T)]
    else:
        command = [sys.executable, __file__, "--one", name, "--work", str(folder), "--sentences", str(count)]
        command += ["--threads", str(threads)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode != 0:
        sys.exit(f"{name} failed:\n{finished.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return result


def write_part(folder: Path, count: int, out_of: int) -> None:
    """Write `part.json`: `count` of the first `out_of` sentences, spread over their lengths, and one for warm-up."""
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    by_length = sorted(sentences[:out_of], key=lambda text: (len(text.split()), text))
    part = [by_length[(2 * place + 1) * out_of // (2 * count)] for place in range(count)]
    (folder / "part.json").write_text(json.dumps([*part, sentences[-1]]), encoding="utf-8")


def peer_python(work: Path, name: str) -> Path:
    """Interpreter of a peer's virtualenv, which is created if missing."""
    python = work / "peers" / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEERS[name]], check=True)
    return python


def measure(name: str, folder: Path, count: int, threads: int) -> dict[str, Any]:
    """Seconds of one of our own contenders, after a warm-up on another sentence."""
    import torch

    torch.set_num_threads(threads)
    if name.startswith("peak-"):
        return {"flops": peak_flops(torch.bfloat16 if name.endswith("bf16") else torch.float32)}
    *sentences, warm_up = json.loads((folder / "part.json").read_text(encoding="utf-8"))
    assert len(sentences) == count
    if name == "oracle":
        from benchmarks.peers.oracle import BatchOneLoop

        loop = BatchOneLoop(folder / "model", K)
        loop.candidates(warm_up)
        seconds = fastest(lambda: [loop.candidates(text) for text in sentences], 2)
        return {"sentences": count, "seconds": seconds, "memory": peak_memory()}
    from augment_service.engine.augment import AugmentEngine
    from augment_service.engine.glove import GloveVectors
    from augment_service.engine.masked_lm import MaskedLM
    from shared.compute.memory import keep_freed_memory
    from shared.inputs.rows import SourceRow
    from shared.params import AugmentParams

    keep_freed_memory()
    _, dtype, *context = name.split("-")
    params = AugmentParams(n_a=N_A, k=K, p_t=P_T, context=context[0] if context else "single")  # type: ignore[arg-type]
    masked_lm = MaskedLM.load(str(folder / "model"), "cpu", dtype, threads)
    engine = AugmentEngine(masked_lm, GloveVectors.load(str(folder / "glove.txt")), params)
    engine.samples([SourceRow(0, warm_up)])
    rows = [SourceRow(row, text) for row, text in enumerate(sentences)]
    before = engine.statistics.model_tokens
    engine.samples(rows)
    flops = encoder_flops_per_token(masked_lm) * (engine.statistics.model_tokens - before)
    seconds = fastest(lambda: engine.samples(rows), 3)
    return {"sentences": count, "seconds": seconds, "flops": flops / seconds, "memory": peak_memory()}


def fastest(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest of `rounds` rounds."""
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return min(seconds)


def peak_memory() -> int:
    """Highest resident size of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def encoder_flops_per_token(masked_lm: Any) -> float:
    """2 x weights of the linear layers, counting only keys and values of the last encoder layer.

    The rest of the last layer runs only at masked positions. Attention products and the head are not counted either, so
    the resulting utilisation is a lower bound.
    """
    config = masked_lm._model.config
    d, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    full = 2.0 * (4 * d * d + 2 * d * ffn)
    return float((layers - 1) * full + 2.0 * 2 * d * d)


def peak_flops(dtype: Any) -> float:
    """The best FLOP/s of square matrix products over 0.1 s, plain and with a prepacked weight layout."""
    import torch

    from shared.compute.linear import Linear

    best = 0.0
    for size in (1024, 1536, 2048):
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        linear = Linear((torch.nn.Linear(size, size),), dtype)
        products: list[Callable[[], Any]] = [lambda a=a, b=b: a @ b, lambda a=a, linear=linear: linear(a)]  # type: ignore[misc]
        for product in products:
            product()
            for _ in range(6):
                began, rounds = time.monotonic(), 0
                while time.monotonic() - began < 0.1:
                    product()
                    rounds += 1
                best = max(best, 2.0 * size**3 * rounds / (time.monotonic() - began))
    return best


def table(results: dict[str, dict[str, Any]], peaks: dict[str, float], threads: int) -> str:
    """Markdown table of one thread count."""
    lines = [
        f"{threads} thread{'s' if threads > 1 else ''}; measured matrix-multiply peak: "
        f"{', '.join(f'{kind} {peak / 1e9:,.0f}' for kind, peak in peaks.items())} GFLOP/s",
        "",
        "| | sentences/s | engine bf16 is | engine fp32 is | `unmasked` is | share of peak | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    rate = {name: one["sentences"] / one["seconds"] for name, one in results.items()}
    for name, one in results.items():
        ratios = [
            f"{rate[engine] / rate[name]:.1f} x" if engine in rate and name != engine else ""
            for engine in ("engine-bf16", "engine-fp32", "engine-bf16-unmasked")
        ]
        share = ""
        if "flops" in one and "unmasked" not in name:
            peak = peaks["fp32" if "fp32" in name else "bf16"]
            share = f"{one['flops'] / peak:.0%} ({one['flops'] / 1e9:,.0f} GFLOP/s)"
        memory = f"{one['memory'] / 2**20:,.0f} MiB"
        lines.append(f"| {NAMES[name]} | {rate[name]:.2f} | {' | '.join(ratios)} | {share} | {memory} |")
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """Processor model and count."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{os.cpu_count()} cores of {name}"


if __name__ == "__main__":
    main()
