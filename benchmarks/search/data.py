"""Embeddings that behave like those of faces: people with several templates, a spectrum that falls, strangers.

There is no real person in them. What matters for speed is taken over: genuine pairs lie around 0.67, impostor pairs
around 0 with a spread wider than on a sphere of D dimensions, because a few directions carry more than others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

GENUINE = 0.67
TEMPLATES = 5  # on average, geometric
STRANGERS = 0.2


def _directions(rng: np.random.Generator, count: int, dimension: int) -> npt.NDArray[np.float32]:
    """Unit rows whose variance falls like ``(i + 4) ** -0.7`` over the dimensions."""
    spread = (np.arange(dimension) + 4.0) ** -0.35
    x = rng.standard_normal((count, dimension), dtype=np.float32) * spread.astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _seen(rng: np.random.Generator, people: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A template of each person: two of the same agree by ``GENUINE`` on average, as faces do, some more, some less."""
    share = np.clip(rng.normal(GENUINE, 0.04, (len(people), 1)), 0.4, 0.9).astype(np.float32)
    x = np.sqrt(share) * people + np.sqrt(1 - share) * _directions(rng, *people.shape)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def batches(count: int, dimension: int, seed: int = 3, size: int = 65536) -> Iterator[npt.NDArray[np.float32]]:
    """A gallery in batches; a person's templates stand together."""
    for start in range(0, count, size):
        rng = np.random.default_rng((seed, dimension, start))
        n = min(size, count - start)
        people = _directions(rng, n // TEMPLATES + 1, dimension)
        yield _seen(rng, people[np.sort(rng.integers(0, len(people), n))])


def gallery(count: int, dimension: int, seed: int = 3) -> npt.NDArray[np.float32]:
    """``(count, dimension)`` float32, unit rows."""
    return np.concatenate(list(batches(count, dimension, seed)))


def probes(count: int, of: npt.NDArray[np.float32], seed: int = 4) -> npt.NDArray[np.float32]:
    """``(count, D)`` float32: further pictures of people in the gallery, and 20 % strangers."""
    rng = np.random.default_rng((seed, len(of)))
    known = of[rng.integers(0, len(of), count)]
    # a template agrees with the person by sqrt(GENUINE), so a new one agrees with it by GENUINE when drawn around it
    share = np.float32(GENUINE)
    x = share * known + np.sqrt(1 - share * share) * _directions(rng, count, of.shape[1])
    strangers = rng.random(count) < STRANGERS
    x[strangers] = _directions(rng, int(strangers.sum()), of.shape[1])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x
