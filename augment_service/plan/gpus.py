"""GPUs known to `plan --gpu`, with their data-sheet peak rates. This project has not measured any of them.

`bf16` is the dense bf16 tensor rate (half of the figure that data sheets give "with sparsity"), `fp32` the plain fp32
rate, which the vocabulary head uses. Both are in FLOP/s. Other GPUs can be given as `--gpu BF16/FP32` in TFLOP/s.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UsageError

UTILISATION = 0.3
"""Assumed utilisation: the share of a GPU's peak that the engine reaches; `--utilisation` overrides it. On CPUs the
engine reached 0.7 to 0.8 of a measured peak. Short texts make it harder to keep a GPU busy, and no GPU was available to
measure it."""

KERNELS_PER_LAYER, SECONDS_PER_KERNEL = 16, 6e-6
"""Assumed cost of launching a layer's kernels, once per batch; it dominates for small batches on a fast GPU."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peak FLOP/s by data sheet."""

    name: str
    bf16: float
    fp32: float


GPUS = {
    name.lower(): Gpu(name, bf16 * 1e12, fp32 * 1e12)
    for name, bf16, fp32 in (
        ("A10", 125, 31.2),
        ("A30", 165, 10.3),
        ("A40", 150, 37.4),
        ("A100", 312, 19.5),
        ("L4", 121, 30.3),
        ("L40S", 362, 91.6),
        ("H100", 989, 67),
        ("H100-PCIe", 756, 51),
        ("H200", 989, 67),
        ("RTX-4090", 165, 82.6),
    )
}
NO_GPU = "none"


def find_gpu(name: str) -> Gpu | None:
    """The GPU of that name, ignoring case, or None for `none`. Raises UsageError, which lists the known names."""
    if name.lower() == NO_GPU:
        return None
    if found := GPUS.get(name.lower()):
        return found
    bf16, slash, fp32 = name.partition("/")
    try:
        rates = (float(bf16), float(fp32)) if slash else (0.0, 0.0)
    except ValueError:
        rates = (0.0, 0.0)
    if min(rates) > 0:
        return Gpu(f"{bf16}/{fp32} TFLOP/s", rates[0] * 1e12, rates[1] * 1e12)
    known = ", ".join(gpu.name for gpu in GPUS.values())
    raise UsageError(f"--gpu {name}: unknown GPU; use none, {known}, or BF16/FP32 peaks in TFLOP/s, such as 312/19.5")
