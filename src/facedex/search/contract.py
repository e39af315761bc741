"""What an index promises: it answers as the float64 reference does and follows additions and removals at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Index(Protocol):
    """A disposable projection of a store's embeddings. Safe to share between threads."""

    def __len__(self) -> int: ...

    def add(self, embeddings: npt.NDArray[np.float32], ids: Ids) -> None:
        """(N, D) float32 unit rows under N new int64 ids."""

    def remove(self, ids: Ids) -> None:
        """Forget these ids; unknown ones are passed over. No search that starts later returns them."""

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids are in the index."""

    def search(
        self, probes: npt.NDArray[np.float32], k: int = 10, *, where: Ids | None = None
    ) -> tuple[npt.NDArray[np.float32], Ids]:
        """The k most similar of each probe.

        probes   (Q, D) float32 unit rows.
        where    only these ids are candidates; None: all.
        Returns  similarities (Q, k) float32 and ids (Q, k) int64, best first, equal similarities by id; places
                 beyond the number of candidates hold -inf and -1.
        """
