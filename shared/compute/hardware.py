"""The device and precision of a command, and the hardware facts that decide the last digits of a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UsageError

if TYPE_CHECKING:
    import torch

BF16_FLAGS = ("avx512_bf16", "amx_bf16")
_BELOW_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")
_BELOW_BF16 = (*_BELOW_AVX512, "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA that disable oneDNN's bf16 instructions. PyTorch ignores the variable and would run bf16
without them."""


def resolve_device(device: str) -> str:
    """`auto` -> cuda if available, otherwise cpu. Raises UsageError if cuda is requested but not available."""
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("--device cuda: this machine has no usable CUDA device; use --device cpu")
    return ("cuda" if available else "cpu") if device == "auto" else device


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """`auto` -> bf16 if the hardware has instructions for it, otherwise fp32.

    Raises UsageError for bf16 on a CPU for which oneDNN has no bf16 kernels: PyTorch's fallback takes seven to nine
    times as long as fp32 (measured with AVX2), and is not batch-invariant.
    """
    import torch

    if dtype == "auto":
        return torch.bfloat16 if _multiplies_bf16(device) else torch.float32
    if dtype == "bf16" and device == "cpu" and not has_bf16_kernels():
        raise UsageError(
            "--dtype bf16: this CPU lacks the instructions that bf16 needs (AVX-512 or newer), so it would be many "
            "times slower than fp32; use --dtype auto or --dtype fp32"
        )
    return torch.bfloat16 if dtype == "bf16" else torch.float32


def hardware_kind(device: str) -> str:
    """The hardware facts that decide the last digits of a product: the GPU's name or the CPU's instruction sets."""
    import torch

    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return "+".join([torch.backends.cpu.get_cpu_capability(), *_bf16_flags()])


def _multiplies_bf16(device: str) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_bf16_flags()) and has_bf16_kernels()


def _bf16_flags() -> list[str]:
    """The bf16 instructions that oneDNN may use."""
    flags = _cpu_flags()
    return [name for name in BF16_FLAGS if name in flags and not _is_capped(_BELOW_BF16)]


def has_bf16_kernels() -> bool:
    """Whether oneDNN can compute in bf16 on this CPU, even if only with AVX-512 and without bf16 instructions."""
    import torch

    if _is_capped(_BELOW_AVX512):
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def _is_capped(below: tuple[str, ...]) -> bool:
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in below


def _cpu_flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return frozenset()
