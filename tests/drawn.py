"""Four people, whose photos are drawn, and the thresholds that tell them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from facedex.decide import Calibration, DecisionPolicy, Interval, OperatingPoint

ANN, BOB, CY, DEE = 1, 2, 3, 4
Draw = Callable[..., Path]


def _point(threshold: float) -> OperatingPoint:
    nothing = Interval(0.0, 0.001)
    return OperatingPoint(threshold, 0.0, nothing, 0.0, nothing, "drawn faces", 100, 1000, 10000, "2026-01-01")


POLICY = DecisionPolicy(_point(0.5), _point(0.35), Calibration(20.0, -8.0, 0.1, 99.9, "drawn faces", "2026-01-01"))
