"""auto never picks a precision without kernels for the processor, and requesting one is rejected in one line."""

from __future__ import annotations

import pytest
import torch

from shared.compute import hardware
from shared.compute.hardware import resolve_device, resolve_dtype
from shared.errors import UsageError


@pytest.fixture(autouse=True)
def _no_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests say what the processor has, whatever oneDNN may use of it."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx2"})])
def test_auto_is_fp32_without_bf16_instructions(monkeypatch: pytest.MonkeyPatch, flags: frozenset[str]) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: True)
    assert resolve_dtype("auto", "cpu") == torch.float32


@pytest.mark.parametrize("flag", hardware.BF16_FLAGS)
@pytest.mark.parametrize("has_kernels", [True, False])
def test_auto_is_bf16_with_both_instructions_and_kernels(
    monkeypatch: pytest.MonkeyPatch, flag: str, has_kernels: bool
) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: frozenset({"avx2", flag}))
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: has_kernels)
    assert resolve_dtype("auto", "cpu") == (torch.bfloat16 if has_kernels else torch.float32)
    assert hardware.hardware_kind("cpu").endswith(f"+{flag}")


@pytest.mark.parametrize("is_native", [True, False])
def test_auto_does_not_pick_bf16_that_a_gpu_emulates(monkeypatch: pytest.MonkeyPatch, is_native: bool) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or is_native
    )
    assert resolve_dtype("auto", "cuda") == (torch.bfloat16 if is_native else torch.float32)


def test_bf16_without_kernels_is_rejected_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: False)
    with pytest.raises(UsageError, match=r"--dtype bf16: this CPU .*use --dtype auto or --dtype fp32$"):
        resolve_dtype("bf16", "cpu")
    assert resolve_dtype("fp32", "cpu") == torch.float32
    assert resolve_dtype("bf16", "cuda") == torch.bfloat16


def test_bf16_with_kernels_is_used_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bf16_kernels", lambda: True)
    assert resolve_dtype("bf16", "cpu") == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_device_is_rejected() -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UsageError, match=r"--device cuda: .*use --device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("most", "has_kernels", "dtype"),
    [
        ("AVX2", False, "float32"),
        ("avx2_vnni", False, "float32"),
        ("AVX512_CORE", True, "float32"),
        ("AVX512_CORE_BF16", True, "bfloat16"),
        ("ALL", True, "bfloat16"),
    ],
)
def test_instructions_that_onednn_may_not_use_do_not_count(
    monkeypatch: pytest.MonkeyPatch, most: str, has_kernels: bool, dtype: str
) -> None:
    """ONEDNN_MAX_CPU_ISA=AVX2 made `auto` choose a bf16 that took many times as long as fp32."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert hardware.has_bf16_kernels() == has_kernels
    assert str(hardware.resolve_dtype("auto", "cpu")) == f"torch.{dtype}"
    assert hardware.hardware_kind("cpu").endswith("avx512_bf16") == (dtype == "bfloat16")
