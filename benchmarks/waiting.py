"""Training steps per second with OpenMP's default spin count and with ours, alone and next to a busy process.

    python benchmarks/waiting.py

Each measurement is a separate process, because the spin count is read when torch is loaded. They alternate; medians and
their ratios are printed. A step trains a student: hidden states of a BERT of the embedded encoder's size, a student of
3 layers, AdamW.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS, TOKENS = 32, 24
OPENMP_OWN, OURS = "300000", "2000"
"""GOMP_SPINCOUNT: GNU OpenMP's default, and the value set by `import trainer`."""
BUSY = "while True: pass"


def steps(seconds: float) -> float:
    """Training steps per second on all cores."""
    import torch
    import torch.nn.functional as functional
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    teacher = BertModel(BertConfig(**shape)).eval().to(torch.bfloat16)
    small = {"hidden_size": 144, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 576}
    student = BertModel(BertConfig(vocab_size=13_000, **small))
    optimizer = torch.optim.AdamW(student.parameters())
    tokens = torch.randint(0, 13_000, (ROWS, TOKENS))
    done, began = -1, time.perf_counter()
    while time.perf_counter() - began < seconds or done < 1:
        with torch.no_grad():
            wanted = teacher(tokens).last_hidden_state[..., :144].float()
        with torch.autocast("cpu", torch.bfloat16):
            found = student(tokens).last_hidden_state.float()
        torch.autograd.backward(functional.mse_loss(found, wanted))
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if not done:
            began = time.perf_counter()  # the first step is a warm-up
    return done / (time.perf_counter() - began)


def measured(spins: str, is_busy: bool, seconds: float) -> float:
    """As `steps` but in a new process, next to a busy process if `is_busy`."""
    environment = os.environ | {"GOMP_SPINCOUNT": spins, "PYTHONPATH": str(ROOT)}
    # In another session, like another user's program: Linux divides the cores between sessions first.
    other = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True) if is_busy else None
    try:
        command = [sys.executable, str(Path(__file__)), "--seconds", str(seconds), "--child"]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(finished.stdout)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a measurement")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(steps(options.seconds))
        return
    print(f"| {os.cpu_count()} cores | OpenMP's own, steps/s | ours, steps/s | ours / own |\n|---|---:|---:|---:|")
    for is_busy in (False, True):
        found: dict[str, list[float]] = {OPENMP_OWN: [], OURS: []}
        for _ in range(options.repetitions):
            for spins, values in found.items():
                values.append(measured(spins, is_busy, options.seconds))
        own, ours = (statistics.median(values) for values in found.values())
        kind = "next to one busy process" if is_busy else "alone"
        print(f"| {kind} | {own:.1f} | {ours:.1f} | {ours / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
