"""Compressed rows in inverted lists: the only module that knows faiss.

Rows are turned so that every pair of dimensions carries about the same variance product (Ge et al. 2013,
doi:10.1109/CVPR.2013.379, "parametric" solution), coded in 4 bits a pair, and kept in lists around centroids
(Jégou et al. 2011, doi:10.1109/TPAMI.2010.57; André et al. 2015, doi:10.14778/2856318.2856324 for the scan).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from facedex.errors import SearchDriverMissing

_TRAINED_BY = 65536
_ADDED_AT_ONCE = 65536


def faiss() -> Any:
    """The library, imported when first needed. Raises SearchDriverMissing."""
    try:
        import faiss
    except ImportError as error:
        raise SearchDriverMissing(
            "Approximate search needs faiss, which is not installed: pip install 'facedex[ann]'.",
            package="faiss-cpu",
            install="pip install 'facedex[ann]'",
        ) from error
    return faiss


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lists_for(rows: int) -> int:
    """How many inverted lists a gallery of this size gets."""
    return int(np.clip(np.sqrt(rows) / 2, 8, 4096))


def balanced_rotation(sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(D', D)`` float32 with orthonormal columns, D' even: eigenvectors dealt out in pairs of equal worth."""
    dimension = sample.shape[1]
    values, vectors = np.linalg.eigh(np.cov(sample, rowvar=False, dtype=np.float64).reshape(dimension, dimension))
    even = dimension + dimension % 2
    values = np.pad(np.maximum(values, 1e-12), (even - dimension, 0), constant_values=1e-12)
    # rising order: the smallest stands beside the largest, the second smallest beside the second largest …
    order = np.stack([np.arange(even // 2), np.arange(even)[::-1][: even // 2]], axis=1).ravel()
    turned = np.zeros((even, dimension), np.float64)
    turned[even - dimension :] = vectors.T
    return np.ascontiguousarray(turned[order], np.float32)


class Codes:
    """The codes of rows, each known by its position. Not safe to change while it is searched."""

    def __init__(self, index: Any, rotation: npt.NDArray[np.float32]) -> None:
        self._index = index
        self.rotation = rotation

    @classmethod
    def train(cls, sample: npt.NDArray[np.float32], rows: int) -> Self:
        """Learn rotation, centroids and codebooks.

        sample  (n, D) float32 unit rows drawn from the gallery, n ≥ 1024; more than 65,536 change nothing.
        rows    how many rows there will be.
        """
        library = faiss()
        # Its worker threads spin while they wait for each other: on a machine that has other work to do, 6,000 rows
        # took 11 s with two threads, 0.3 s with one. So it gets one everywhere, and we split the probes.
        library.omp_set_num_threads(1)
        rotation = balanced_rotation(sample)
        turned = sample[:_TRAINED_BY] @ rotation.T
        lists = min(lists_for(rows), len(sample) // 64)
        even = len(rotation)
        coarse = library.IndexFlatIP(even)
        index = library.IndexIVFPQFastScan(coarse, even, lists, even // 2, 4, library.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.seed, index.cp.spherical = 10, 1, True
        index.cp.min_points_per_centroid = 1  # small galleries: no advice on the terminal
        index.pq.cp.min_points_per_centroid = 1
        index.train(turned)
        return cls(index, rotation)

    @classmethod
    def from_bytes(cls, data: npt.NDArray[np.uint8], rotation: npt.NDArray[np.float32]) -> Self:
        """What ``to_bytes`` gave. Raises ValueError when it is something else."""
        library = faiss()
        try:
            index = library.deserialize_index(data)
        except RuntimeError as error:
            raise ValueError(f"faiss cannot read it: {str(error).splitlines()[0]}") from error
        if not isinstance(index, library.IndexIVFPQFastScan) or index.d != len(rotation):
            raise ValueError(f"it holds a {type(index).__name__} of {index.d} dimensions")
        return cls(index, rotation)

    def to_bytes(self) -> npt.NDArray[np.uint8]:
        data: npt.NDArray[np.uint8] = faiss().serialize_index(self._index)
        return data

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def lists(self) -> int:
        return int(self._index.nlist)

    @property
    def row_bytes(self) -> int:
        """Bytes of one coded row, its position included."""
        return int(self._index.code_size) + 8

    def add(self, rows: npt.NDArray[np.float32], positions: npt.NDArray[np.int64]) -> None:
        faiss().omp_set_num_threads(1)
        for start in range(0, len(rows), _ADDED_AT_ONCE):
            end = start + _ADDED_AT_ONCE
            self._index.add_with_ids(rows[start:end] @ self.rotation.T, positions[start:end])

    def remove(self, positions: npt.NDArray[np.int64]) -> None:
        self._index.remove_ids(positions)

    def search(
        self,
        probes: npt.NDArray[np.float32],
        count: int,
        probed: int,
        threads: int,
        allowed: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Positions of the rows that look most similar, best first.

        probes   (Q, D) float32.
        probed   how many lists to look into.
        allowed  a bit for each position, little-endian; None: all.
        Returns  (Q, count) int64, -1 where there are fewer.
        """
        library = faiss()
        count = min(count, len(self))
        selector = None if allowed is None else library.IDSelectorBitmap(allowed)
        parameters = library.SearchParametersIVF(nprobe=min(probed, self.lists), sel=selector)
        turned = probes @ self.rotation.T

        def part(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
            library.omp_set_num_threads(1)  # of the calling thread only
            found: npt.NDArray[np.int64] = self._index.search(rows, count, params=parameters)[1]
            return found

        threads = min(threads, len(probes) // 4)
        if threads < 2:
            return part(turned)
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(part, np.array_split(turned, threads))))
