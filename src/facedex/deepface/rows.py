"""Results as rows: lists of dicts, or of pandas DataFrames where pandas is."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facedex.deepface.distances import Metric, confidence_of, find_distance, least_similarity
from facedex.engine import Gallery
from facedex.errors import ArgumentInvalid, ExtraMissing
from facedex.search.projection import Mode
from facedex.types import Face, StoredTemplate

__all__ = ["Judged", "judged", "tables"]

_FIRST = 64


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """An enrolled face and how far it is from a probe."""

    stored: StoredTemplate
    distance: float
    confidence: float | None


def judged(
    gallery: Gallery,
    faces: Sequence[Face],
    metric: Metric,
    threshold: float,
    *,
    k: int | None = None,
    all_of_them: bool = False,
    mode: Mode = "auto",
) -> list[list[Judged]]:
    """For each face the enrolled ones within a threshold, nearest first.

    k            at most so many; None: every one.
    all_of_them  the threshold leaves nothing out (DeepFace's ``similarity_search``).
    """
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ArgumentInvalid(f"k is {k!r}; expected a whole number of 1 or more, or None.", k=repr(k))
    least = -1.0 if all_of_them else least_similarity(metric, threshold)
    every = callable(metric) or (all_of_them and k is None)
    total = gallery.count()
    if not total:
        return [[] for _ in faces]
    wanted = total if every else min(k or _FIRST, total)
    while True:
        found = gallery.search_faces(faces, k=wanted, mode="exact" if every else mode)
        beyond = all(len(one.candidates) < wanted or one.candidates[-1].similarity < least for one in found)
        if beyond or k is not None or wanted >= total:
            break
        wanted = min(wanted * 8, total)
    ids = {candidate.template_id for one in found for candidate in one.candidates}
    stored = {each.id: each for each in gallery.store.get(sorted(ids))}
    answers = []
    for one in found:
        rows = [
            _judge(gallery, one.face, stored[candidate.template_id], metric)
            for candidate in one.candidates
            if candidate.template_id in stored
        ]
        rows = sorted((row for row in rows if all_of_them or row.distance <= threshold), key=lambda row: row.distance)
        answers.append(rows[:k])
    return answers


def _judge(gallery: Gallery, face: Face, stored: StoredTemplate, metric: Metric) -> Judged:
    assert face.embedding is not None
    enrolled = stored.template.embedding
    similarity = 1 - float(find_distance(enrolled, face.embedding))
    distance = float(find_distance(enrolled, face.embedding, metric))
    return Judged(stored, distance, confidence_of(gallery.engine, similarity))


def check_return_type(return_type: str | None) -> str:
    """``"pandas"`` or ``"dict"``; None is the first where pandas is installed.

    Raises  ArgumentInvalid; ExtraMissing for pandas where it is not.
    """
    installed = importlib.util.find_spec("pandas") is not None
    if return_type is None:
        return "pandas" if installed else "dict"
    if return_type not in ("pandas", "dict"):
        raise ArgumentInvalid(f"return_type is {return_type!r}; expected 'pandas' or 'dict'.", return_type=return_type)
    if return_type == "pandas" and not installed:
        raise ExtraMissing(
            "return_type='pandas' needs pandas. Install it: pip install 'facedex[deepface]'; or take 'dict'.",
            extra="deepface",
        )
    return return_type


def tables(answers: Sequence[Sequence[dict[str, Any]]], columns: Sequence[str], return_type: str) -> list[Any]:
    """One table for each face: a DataFrame, its columns there also without rows, or a list of dicts.

    return_type  of ``check_return_type``.
    """
    if return_type == "dict":
        return [list(rows) for rows in answers]
    import pandas as pd

    return [pd.DataFrame(list(rows), columns=list(columns)) for rows in answers]
