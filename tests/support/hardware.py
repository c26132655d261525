"""Hardware that some tests require."""

from __future__ import annotations

import pytest

from shared.compute.hardware import has_bf16_kernels

NEEDS_BF16 = pytest.mark.skipif(not has_bf16_kernels(), reason="needs a processor with AVX-512 for bf16")
CPU_DTYPES = ["fp32", pytest.param("bf16", marks=NEEDS_BF16)]
