"""Labelled photos judged: read, embedded by an engine, evaluated, calibrated, laid out. Composes engine and decide."""

from facedex.study.calibration import CalibrationStudy, calibrate
from facedex.study.evaluation import Evaluation, GroupAccuracy, Mistake, evaluate
from facedex.study.labelled import Labelled, LabelledFace, read_labelled
from facedex.study.tables import read_groups

__all__ = [
    "CalibrationStudy",
    "Evaluation",
    "GroupAccuracy",
    "Labelled",
    "LabelledFace",
    "Mistake",
    "calibrate",
    "evaluate",
    "read_groups",
    "read_labelled",
]
