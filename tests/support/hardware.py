"""What a test may ask of the machine it runs on."""

from __future__ import annotations

import pytest

from shared.compute.hardware import has_bf16_kernels

NEEDS_BF16 = pytest.mark.skipif(not has_bf16_kernels(), reason="needs a processor with AVX-512: bf16 is refused here")
CPU_DTYPES = ["fp32", pytest.param("bf16", marks=NEEDS_BF16)]
