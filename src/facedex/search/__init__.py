"""Searching embeddings: the exact index, its reference, its saved form."""

from facedex.search.contract import Allowed, Index
from facedex.search.exact import ExactIndex, Filter

__all__ = ["Allowed", "ExactIndex", "Filter", "Index"]
