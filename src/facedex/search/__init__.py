"""Nearest faces: a certified exact index, its float64 reference, and the projection that follows a store."""

from facedex.search.exact import ExactIndex

__all__ = ["ExactIndex"]
