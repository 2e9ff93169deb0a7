"""What a training multiplies in: float32, or bfloat16 with everything else float32, which is mixed precision."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FULL, MIXED = PRECISIONS
