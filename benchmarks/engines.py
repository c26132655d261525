"""Compares inference engines for the masked LM on a CPU, on the same batches, to choose the default.

Each engine runs the same masked inputs (encoder, head at the masked position, the 16 best entries), in batches of equal
length and at most --batch-tokens tokens. Each runs in its own process, one after another. ONNX Runtime and OpenVINO run
in a virtualenv that is created on first use.

    python benchmarks/engines.py --layers 12 --hidden 768 --threads 2 1
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from shared.compute.hardware import has_bf16_kernels  # noqa: E402

RUNTIMES = ["torch==2.13.0", "transformers==5.23.0", "onnx", "onnxscript", "onnxruntime", "openvino"]
K = 16
OURS = ("ours-bf16", "ours-fp32")
NAMES = {
    "ours-bf16": "this engine, bf16 (packed, oneDNN layouts)",
    "torch-bf16": "plain PyTorch, bf16",
    "compile-bf16": "torch.compile, bf16",
    "openvino-bf16": "OpenVINO, bf16",
    "ours-fp32": "this engine, fp32",
    "torch-fp32": "plain PyTorch, fp32",
    "openvino-fp32": "OpenVINO, fp32",
    "onnx-fp32": "ONNX Runtime, fp32 (no bf16 kernels on CPUs)",
}
Batch = tuple[list[list[int]], list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--engines", nargs="+", default=list(NAMES))
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.work, options.threads[0])))
        return

    from benchmarks.augment import cpu_name, prepare

    folder = prepare(options.work, options.layers, options.hidden)
    write_batches(folder, options.sentences, options.batch_tokens)
    python = runtimes_python(options.work)
    lines = []
    for threads in options.threads:
        rates = {}
        for name in options.engines:
            if "bf16" in name and not has_bf16_kernels():
                continue
            interpreter = sys.executable if name in OURS else str(python)
            command = [interpreter, __file__, "--one", name, "--work", str(folder), "--threads", str(threads)]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
            finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if finished.returncode != 0:
                reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
                lines.append(f"| {threads} | {NAMES[name]} | failed: {reason[:120]} | | |")
                continue
            rates[name] = json.loads(finished.stdout.strip().splitlines()[-1])
            ours = rates.get("ours-" + name.rpartition("-")[2])
            ratio = f"{rates[name]['rate'] / ours['rate']:.2f} x" if ours else ""
            lines.append(
                f"| {threads} | {NAMES[name]} | {rates[name]['rate']:,.0f} | {ratio} | {rates[name]['ready']:.0f} s |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    print(f"## {options.layers} x {options.hidden}, {date.today()}, {cpu_name()}")
    print(f"`python benchmarks/engines.py {' '.join(sys.argv[1:])}`\n")
    print(
        "| threads | engine | masked inputs/s | relative to this engine in the same precision | load and first pass |"
    )
    print("|---|---|---|---|---|")
    print("\n".join(lines))


def write_batches(folder: Path, count: int, batch_tokens: int) -> None:
    """Write the sentences' masked inputs, in batches of equal length."""
    from transformers import AutoTokenizer

    from augment_service.engine.words import WordSplitter, may_replace

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))[:count]
    by_length: dict[int, list[tuple[list[int], int]]] = {}
    for words in WordSplitter(tokenizer).split(sentences):
        token_ids = [token for word in words for token in word.piece_ids]
        place = 0
        for word in words:
            if word.is_single_piece and may_replace(word, "reference"):
                ids = [tokenizer.cls_token_id, *token_ids, tokenizer.sep_token_id]
                ids[place + 1] = tokenizer.mask_token_id
                by_length.setdefault(len(ids), []).append((ids, place + 1))
            place += len(word.piece_ids)
    batches = []
    for length, inputs in sorted(by_length.items()):
        size = max(batch_tokens // length, 1)
        parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        batches += [([ids for ids, _ in part], [place for _, place in part]) for part in parts]
    (folder / "batches.json").write_text(json.dumps(batches), encoding="utf-8")


def runtimes_python(work: Path) -> Path:
    """Interpreter of the virtualenv with the other engines."""
    python = work / "peers" / "runtimes" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *RUNTIMES], check=True)
    return python


def measure(name: str, folder: Path, threads: int) -> dict[str, float]:
    """Masked inputs per second over all batches, best of three rounds after a warm-up."""
    import torch

    torch.set_num_threads(threads)
    batches = json.loads((folder / "batches.json").read_text(encoding="utf-8"))
    began = time.monotonic()
    kind, _, dtype = name.rpartition("-")
    answer = {"ours": ours, "torch": plain, "compile": compiled, "openvino": openvino, "onnx": onnx}[kind](
        folder, dtype, threads
    )
    answer(batches)
    ready = time.monotonic() - began
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        answer(batches)
        seconds.append(time.monotonic() - began)
    return {"rate": sum(len(ids) for ids, _ in batches) / min(seconds), "ready": ready}


def ours(folder: Path, dtype: str, threads: int) -> Callable[[list[Batch]], None]:
    from augment_service.engine.batches import ModelInput
    from augment_service.engine.masked_lm import MaskedLM

    masked_lm = MaskedLM.load(str(folder / "model"), "cpu", dtype, threads)

    def answer(batches: list[Batch]) -> None:
        inputs: list[ModelInput] = []
        groups: list[range] = []
        for ids, places in batches:
            groups.append(range(len(inputs), len(inputs) + len(ids)))
            inputs += [ModelInput(tuple(one), (p,), len(one)) for one, p in zip(ids, places, strict=True)]
        masked_lm.rank(inputs, groups, K, None)

    return answer


def masked_module(folder: Path, dtype: str) -> Any:
    """(ids (B, L), places (B,)) -> logits (B, vocabulary); encoder in `dtype`, head in fp32."""
    import torch
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder / "model", attn_implementation="sdpa").eval()

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Copied first: the head's matrix is tied to the embeddings, which are cast to bf16 with the encoder.
            self.head = copy.deepcopy(model.cls)
            self.encoder = model.base_model.to(torch.bfloat16 if dtype == "bf16" else torch.float32)

        def forward(self, ids: Any, places: Any) -> Any:
            states = self.encoder.embeddings(input_ids=ids)
            for layer in self.encoder.encoder.layer:
                states = layer(states)
                states = states[0] if isinstance(states, tuple) else states
            index = places[:, None, None].expand(-1, 1, states.shape[2])
            return self.head(states.gather(1, index)[:, 0].float())

    return Masked().eval()


def _by_tensor(module: Any) -> Callable[[list[Batch]], None]:
    import torch

    @torch.inference_mode()
    def answer(batches: list[Batch]) -> None:
        for ids, places in batches:
            module(torch.tensor(ids), torch.tensor(places)).topk(K)

    return answer


def plain(folder: Path, dtype: str, _threads: int) -> Callable[[list[Batch]], None]:
    return _by_tensor(masked_module(folder, dtype))


def compiled(folder: Path, dtype: str, _threads: int) -> Callable[[list[Batch]], None]:
    import torch

    # Frozen weights are constants, so the compiler can prepare their layout once.
    torch._inductor.config.freezing = True
    return _by_tensor(torch.compile(masked_module(folder, dtype), dynamic=True))


def openvino(folder: Path, dtype: str, threads: int) -> Callable[[list[Batch]], None]:
    import numpy as np
    import openvino as ov
    import torch

    with torch.no_grad():
        example = (torch.ones(3, 7, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
        model = ov.convert_model(masked_module(folder, "fp32"), example_input=example)
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    ready = ov.compile_model(model, "CPU", options)
    request = ready.create_infer_request()

    def answer(batches: list[Batch]) -> None:
        for ids, places in batches:
            request.infer([np.asarray(ids), np.asarray(places)])
            torch.from_numpy(request.get_output_tensor(0).data).topk(K)

    return answer


def onnx(folder: Path, _dtype: str, threads: int) -> Callable[[list[Batch]], None]:
    import numpy as np
    import onnxruntime
    import torch

    path = folder / "model.onnx"
    if not path.exists():
        example = (torch.ones(3, 7, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
        axes = {"ids": {0: "batch", 1: "length"}, "places": {0: "batch"}, "logits": {0: "batch"}}
        with torch.no_grad():
            torch.onnx.export(
                masked_module(folder, "fp32"),
                example,
                str(path),
                input_names=["ids", "places"],
                output_names=["logits"],
                dynamic_axes=axes,
                dynamo=False,
            )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(batches: list[Batch]) -> None:
        for ids, places in batches:
            (logits,) = session.run(None, {"ids": np.asarray(ids), "places": np.asarray(places)})
            torch.from_numpy(logits).topk(K)

    return answer


if __name__ == "__main__":
    main()
