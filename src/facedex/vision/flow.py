"""Many photos at once: each core takes one from its bytes to aligned crops; crops of several are embedded together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from facedex.models.runtime import share_cores
from facedex.types import Embeddings, Face

__all__ = ["Looked", "flow"]

S = TypeVar("S")
T = TypeVar("T")

_CROPS: Final = 16
"""Faces embedded together: more make no network faster, the activations leave the cache."""
_PHOTOS: Final = 16
"""Photos whose faces are waited for at most; of those without faces nothing is embedded."""
_AHEAD: Final = 4
"""Photos for each core whose crops may wait. Their pixels are gone by then: a crop is 38 kB."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked(Generic[T]):
    """What looking at one source gave.

    item   whatever the caller wants to know of it later.
    faces  found and aligned.
    crops  (N, size, size, 3) uint8, one for each face; None for no faces.
    """

    item: T
    faces: tuple[Face, ...] = ()
    crops: npt.NDArray[np.uint8] | None = None


def flow(
    sources: Iterable[S],
    look: Callable[[S], Looked[T]],
    embed: Callable[[npt.NDArray[np.uint8]], Embeddings],
    cores: int,
) -> Iterator[tuple[T, list[Face]]]:
    """Look at every source and embed its faces, on all cores; in order.

    The stages overlap without queues between them: a core that is free takes the next photo, or a batch of crops to
    embed, and runs the networks on itself alone. What the caller does with a result, such as storing it, overlaps too.
    Memory is bounded by a photo in work for each core, and the crops of ``_AHEAD`` photos for each.

    look     is called on any thread; what it raises ends the flow, after all results before it.
    Returns  an iterator; sources are taken from as it is.
    """
    pool = ThreadPoolExecutor(cores, thread_name_prefix="facedex", initializer=share_cores)
    looking: deque[Future[Looked[T]]] = deque()
    embedding: deque[tuple[list[Looked[T]], Future[Embeddings] | None]] = deque()
    upcoming = iter(sources)
    group: list[Looked[T]] = []
    try:
        while True:
            looking.extend(pool.submit(look, source) for source in islice(upcoming, _AHEAD * cores - len(looking)))
            failure: BaseException | None = None
            if looking:
                try:
                    group.append(looking.popleft().result())
                except BaseException as error:
                    failure = error
            last = failure is not None or not looking
            if group and (last or len(group) >= _PHOTOS or sum(len(looked.faces) for looked in group) >= _CROPS):
                embedding.append((group, _embedding(pool, embed, group)))
                group = []
            while embedding and (last or len(embedding) > cores or _is_done(embedding[0][1])):
                yield from _joined(*embedding.popleft())
            if failure is not None:
                raise failure
            if last:
                return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _embedding(
    pool: ThreadPoolExecutor, embed: Callable[[npt.NDArray[np.uint8]], Embeddings], group: list[Looked[T]]
) -> Future[Embeddings] | None:
    crops = [looked.crops for looked in group if looked.faces and looked.crops is not None]
    return pool.submit(lambda: embed(np.concatenate(crops))) if crops else None


def _is_done(future: Future[Embeddings] | None) -> bool:
    return future is None or future.done()


def _joined(group: list[Looked[T]], future: Future[Embeddings] | None) -> Iterator[tuple[T, list[Face]]]:
    rows = iter(() if future is None else future.result())
    for looked in group:
        yield looked.item, [replace(face, embedding=next(rows)) for face in looked.faces]
