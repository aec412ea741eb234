"""Which clips are taken, by rate, channels and loudness: what can be said of one without torch, which takes seconds to
import."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

RATE, HALF_RATE = 16_000, 8_000
"""Hz of what is transformed."""
BANDS = 80
"""Of a frame of log-Mel."""
LEAST_RATE, MOST_RATE = 4_000, 384_000
MOST_CHANNELS = 8
LOUDEST = 100.0
"""Above it samples are no fractions of full scale: of integers that were not divided, say."""
SAMPLES = 1 << 17
"""What is taken of an array at a time."""
KERNEL = 1 << 21
"""Weights of a resampler, about, at most: it has as many as the terms of its ratio multiplied, for two rates without a
common divisor hundreds of millions."""


@lru_cache
def ratio_of(sample_rate: int) -> tuple[int, int]:
    """By what a clip's samples are multiplied and divided on the way to the encoder's rate; of 8,000 Hz, 1 and 1.

    Of a rate that has hardly a divisor in common with 16,000 it is the nearest ratio of small terms, off by less than
    a part in 3,000. Raises ValueError for a rate that is not read.
    """
    if not LEAST_RATE <= sample_rate <= MOST_RATE or sample_rate != int(sample_rate):
        raise ValueError(
            f"a sample rate of {sample_rate} Hz: allowed are whole numbers from {LEAST_RATE:,} to {MOST_RATE:,}"
        )
    ratio = Fraction(1) if sample_rate == HALF_RATE else Fraction(int(sample_rate), RATE)
    if ratio.numerator * ratio.denominator > KERNEL:
        ratio = ratio.limit_denominator(math.isqrt(int(KERNEL / ratio)))
    return ratio.denominator, ratio.numerator
