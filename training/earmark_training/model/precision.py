"""The precision of matrix products in training."""

from __future__ import annotations

from functools import cache

import torch


def matrix_precision() -> torch.autocast:
    """Return a context for forward passes: bfloat16 where the processor is fast at it, otherwise float32.

    A processor that only has AVX2 takes five times as long for bfloat16 as for float32.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=_has_fast_bfloat16())


@cache
def _has_fast_bfloat16() -> bool:
    is_supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # absent on some systems
    return bool(is_supported and is_supported())
