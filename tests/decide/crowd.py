"""A crowd whose faces are points: some people easily taken for one another."""

from __future__ import annotations

import numpy as np


def crowd(people: int = 30, photos: int = 4, seed: int = 1, spread: float = 0.6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 24))
    rows = np.repeat(centres, photos, axis=0) + spread * rng.normal(size=(people * photos, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [f"person {n // photos}" for n in range(people * photos)]


def pairwise(rows: np.ndarray, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All similarities, genuine and impostor, by two plain loops."""
    genuine, impostor = [], []
    for a in range(len(rows)):
        for b in range(a):
            into = genuine if labels[a] == labels[b] else impostor
            into.append(float(np.dot(rows[a].astype(np.float64), rows[b].astype(np.float64))))
    return np.array(genuine), np.array(impostor)
