"""DeepFace's functions over our engine: change one import and keep going.

    from facedex import DeepFace

    DeepFace.verify("img1.jpg", "img2.jpg")["verified"]
    DeepFace.find("img1.jpg", db_path="my_db")
    DeepFace.register("img1.jpg"); DeepFace.search("target.jpg")

Names, parameters and shapes of results are those of DeepFace 0.0.103; docs/deepface.md says function by function what
is the same, what differs and why, and what is not offered. Errors are ours (``facedex.errors``).
"""

from __future__ import annotations

from facedex.deepface.attributes import analyze
from facedex.deepface.database import build_index, identify, register, search
from facedex.deepface.distances import find_distance, find_threshold
from facedex.deepface.faces import detectFace, extract_faces, represent
from facedex.deepface.folder import find
from facedex.deepface.models import build_model
from facedex.deepface.streaming import stream
from facedex.deepface.verification import verify

__all__ = [
    "analyze",
    "build_index",
    "build_model",
    "detectFace",
    "extract_faces",
    "find",
    "find_distance",
    "find_threshold",
    "identify",
    "register",
    "represent",
    "search",
    "stream",
    "verify",
]
