"""Matrix products are in bfloat16 only where the processor is fast at it."""

from __future__ import annotations

import pytest
import torch
from earmark_training.model import precision


@pytest.mark.parametrize("is_fast", [False, True])
def test_products_have_the_precision_that_the_processor_is_fast_at(
    monkeypatch: pytest.MonkeyPatch, is_fast: bool
) -> None:
    monkeypatch.setattr(precision, "_has_fast_bfloat16", lambda: is_fast)
    layer = torch.nn.Linear(4, 4)
    with precision.matrix_precision():
        product = layer(torch.ones(1, 4))
    assert product.dtype is (torch.bfloat16 if is_fast else torch.float32)
