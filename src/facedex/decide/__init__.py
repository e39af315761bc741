"""Similarity to decision: operating points, confidence, error rates."""

from facedex.decide.policy import Calibration, DecisionPolicy, Interval, OperatingPoint, policy_for

__all__ = ["Calibration", "DecisionPolicy", "Interval", "OperatingPoint", "policy_for"]
