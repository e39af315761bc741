"""What every index promises, whichever way it searches."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from facedex.types import Embeddings

Ids: TypeAlias = npt.NDArray[np.int64]
"""``(N,)`` int64, none negative, each once."""

IdPredicate: TypeAlias = Callable[[Ids], npt.NDArray[np.bool_]]
"""From ids ``(N,)`` to whether each may be an answer, ``(N,)`` bool."""

Allowed: TypeAlias = Collection[int] | npt.NDArray[np.int64] | npt.NDArray[np.bool_] | IdPredicate
"""Which rows may be an answer: allowed ids (set, sequence or int array), a bool mask over ``index.ids``, or a
predicate that is given all ids at once."""


@runtime_checkable
class Index(Protocol):
    """The k enrolled embeddings most similar to each probe.

    An index is a projection of a store: it holds embeddings and ids, nothing else, and can be thrown away.
    All methods may be called from several threads at once.
    """

    @property
    def dimension(self) -> int:
        """D of every embedding."""
        ...

    @property
    def ids(self) -> Ids:
        """The ids of all rows that can be found, in the order they were added; ``(N,)`` int64, a copy."""
        ...

    def __len__(self) -> int:
        """How many rows can be found."""
        ...

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids can be found."""
        ...

    def add(self, embeddings: Embeddings, ids: npt.ArrayLike | None = None) -> None:
        """Add rows; a search that starts afterwards finds them.

        embeddings  (N, D) float32, unit rows.
        ids         (N,) int64, not negative, none in the index; default: on from the largest id it ever held.
        Raises      DimensionMismatch, EmbeddingInvalid, ArgumentInvalid; then nothing was added.
        """
        ...

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove rows by id; returns how many there were. Ids that are not in the index are passed over.

        A search that starts after this returns never answers with them; neither does one that was running, unless
        its answer was decided before.
        """
        ...

    def search(
        self, probes: Embeddings, k: int = 10, threads: int | None = None, where: Allowed | None = None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k best rows for each probe.

        probes   (Q, D) float32, unit rows.
        k        how many; where the index has fewer, the rest has id -1 and similarity -inf.
        threads  how many at most; default: all cores this process may use.
        where    which rows may be an answer; default all. The answer is the k best *of those*.
        Returns  similarities (Q, k) float32, best first; ids (Q, k) int64.
        Raises   DimensionMismatch, EmbeddingInvalid, ArgumentInvalid.
        """
        ...
