"""How trainings compute: what they multiply in, and how their images lie in memory.

They multiply float32, or bfloat16 with everything else float32, which is mixed precision. An image lies channel by channel, or
pixel by pixel with the channels innermost, which many convolutions compute faster from, to the same numbers but for the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FULL, MIXED = PRECISIONS

MemoryFormat = Literal["contiguous", "channels_last"]
MEMORY_FORMATS: tuple[MemoryFormat, ...] = get_args(MemoryFormat)
CONTIGUOUS, CHANNELS_LAST = MEMORY_FORMATS

AUTO: Literal["auto"] = "auto"
AskedPrecision = Precision | Literal["auto"]
ASKED_PRECISIONS: tuple[AskedPrecision, ...] = (*PRECISIONS, AUTO)


@dataclass(frozen=True)
class TrainingWay:
    """How the trainings of a study compute, and what is known of their speed before the first one.

    Attributes:
        precision: What they multiply in.
        memory_format: How their images lie in memory.
        speedup: Seconds of a sample in the plain way, divided by those of this way. The plain way is fp32, or the precision that
            the user asks for, and contiguous.
        sample_s: Seconds of a sample of the untouched model; None: not timed.
    """

    precision: Precision = FULL
    memory_format: MemoryFormat = CONTIGUOUS
    speedup: float = 1.0
    sample_s: float | None = None

    @property
    def notes(self) -> list[str]:
        """Tell the user what was chosen because it is faster."""
        if self.speedup == 1:
            return []
        layout = "" if self.memory_format == CONTIGUOUS else ", channels last"
        hint = "" if self.precision == FULL else " (--train-precision fp32 leaves it out)"
        return [f"training: in {self.precision}{layout}, {self.speedup:.1f} times as fast here as without{hint}"]


PLAIN = TrainingWay()
