"""Similarity to decision: metrics, operating points, confidence, error rates."""

from facedex.decide.confidence import Calibration
from facedex.decide.policy import DecisionPolicy, Interval, OperatingPoint, policy_for

__all__ = ["Calibration", "DecisionPolicy", "Interval", "OperatingPoint", "policy_for"]
