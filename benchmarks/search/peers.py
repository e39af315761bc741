"""Everything that is measured, each behind the same two calls; run in a process of its own.

``python -m benchmarks.search.peers NAME GALLERY.npy``   reads one JSON request a line, answers one line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

EXACT = ("facedex", "faiss flat", "numpy", "scipy cKDTree", "sklearn KDTree")
APPROXIMATE = ("faiss HNSW", "hnswlib", "usearch", "annoy", "faceflash")
SLOW = ("deepface",)
"""Asked one probe at a time: it compares in a Python loop."""


class Peer:
    """search(probes, k) -> ids (Q, k)"""

    def __init__(self, name: str, rows: Any) -> None:
        self.name, self.rows = name, rows
        self.threads = 1
        getattr(self, "build_" + name.replace(" ", "_"))(rows)

    def search(self, probes: Any, k: int) -> Any:
        return getattr(self, "search_" + self.name.replace(" ", "_"))(probes, k)

    def build_facedex(self, rows: Any) -> None:
        from facedex.search import ExactIndex

        self.index = ExactIndex.build(rows)

    def search_facedex(self, probes: Any, k: int) -> Any:
        return self.index.search(probes, k, threads=self.threads)[1]

    def build_faiss_flat(self, rows: Any) -> None:
        import faiss

        self.faiss = faiss
        self.index = faiss.IndexFlatIP(rows.shape[1])
        self.index.add(rows)

    def search_faiss_flat(self, probes: Any, k: int) -> Any:
        self.faiss.omp_set_num_threads(self.threads)
        return self.index.search(probes, k)[1]

    def build_faiss_HNSW(self, rows: Any) -> None:  # noqa: N802
        import faiss

        self.faiss = faiss
        self.index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efSearch = 128
        self.index.add(rows)

    search_faiss_HNSW = search_faiss_flat  # noqa: N815

    def build_numpy(self, rows: Any) -> None:
        pass

    def search_numpy(self, probes: Any, k: int) -> Any:
        out = np.empty((len(probes), k), np.int64)
        for start in range(0, len(probes), 64):
            scores = probes[start : start + 64] @ self.rows.T
            best = np.argpartition(scores, -k, axis=1)[:, -k:] if k < scores.shape[1] else np.argsort(scores, axis=1)
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            out[start : start + 64] = np.take_along_axis(best, order, 1)
        return out

    def build_scipy_cKDTree(self, rows: Any) -> None:  # noqa: N802
        from scipy.spatial import cKDTree

        self.index = cKDTree(rows)

    def search_scipy_cKDTree(self, probes: Any, k: int) -> Any:  # noqa: N802
        return self.index.query(probes, k, workers=self.threads)[1].reshape(len(probes), k)

    def build_sklearn_KDTree(self, rows: Any) -> None:  # noqa: N802
        from sklearn.neighbors import KDTree

        self.index = KDTree(rows)

    def search_sklearn_KDTree(self, probes: Any, k: int) -> Any:  # noqa: N802
        return self.index.query(probes, k)[1]

    def build_hnswlib(self, rows: Any) -> None:
        import hnswlib

        self.index = hnswlib.Index("ip", rows.shape[1])
        self.index.init_index(len(rows), ef_construction=200, M=32)
        self.index.add_items(rows)
        self.index.set_ef(128)

    def search_hnswlib(self, probes: Any, k: int) -> Any:
        return self.index.knn_query(probes, k, num_threads=self.threads)[0].astype(np.int64)

    def build_usearch(self, rows: Any) -> None:
        from usearch.index import Index

        self.index = Index(ndim=rows.shape[1], metric="ip", connectivity=32, expansion_search=128)
        self.index.add(np.arange(len(rows)), rows)

    def search_usearch(self, probes: Any, k: int) -> Any:
        return np.asarray(self.index.search(probes, k, threads=self.threads).keys).reshape(len(probes), k)

    def build_annoy(self, rows: Any) -> None:
        from annoy import AnnoyIndex

        self.index = AnnoyIndex(rows.shape[1], "angular")
        self.index.set_seed(1)
        for n, row in enumerate(rows):
            self.index.add_item(n, row)
        self.index.build(20)

    def search_annoy(self, probes: Any, k: int) -> Any:
        return np.array([self.index.get_nns_by_vector(p, k, search_k=20_000) for p in probes], np.int64)

    def build_faceflash(self, rows: Any) -> None:
        from faceflash import FaceIndex

        self.index = FaceIndex(dim=rows.shape[1], n_bits=512)
        self.index.add_batch(rows, [str(n) for n in range(len(rows))])

    def search_faceflash(self, probes: Any, k: int) -> Any:
        if len(probes) == 1:
            found = [self.index.search(probes[0], k, n_candidates=500)]
        else:
            found = self.index.search_batch(probes, k, n_candidates=500, parallel=self.threads > 1)
        return np.array([[int(label) for label, *_ in each] for each in found], np.int64)

    def build_deepface(self, rows: Any) -> None:
        from deepface.modules.verification import find_cosine_distance

        self.distance = find_cosine_distance
        self.lists = [row.tolist() for row in rows]  # as it gets them from its databases

    def search_deepface(self, probes: Any, k: int) -> Any:
        """What its ``search`` does with the rows once it has them, without its DataFrame."""
        found = []
        for probe in probes.tolist():
            scores = [float(self.distance(row, probe)) for row in self.lists]
            found.append(sorted(range(len(scores)), key=scores.__getitem__)[:k])
        return np.array(found, np.int64)


def main() -> None:
    name, path = sys.argv[1:3]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    rows = np.load(path)
    start = time.perf_counter()
    try:
        peer = Peer(name, rows)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    print(json.dumps({"build_seconds": time.perf_counter() - start}), file=out, flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        probes = np.load(ask["probes"])[ask["first"] : ask["first"] + ask["count"]]
        peer.threads = ask["threads"]
        seconds: list[float] = []
        time.sleep(ask.get("rest", 0))
        if ask.get("warm"):
            peer.search(probes, ask["k"])
        end = time.perf_counter() + ask.get("for_seconds", 0)
        while len(seconds) < ask.get("repeat", 1) or time.perf_counter() < end:
            start = time.perf_counter()
            ids = peer.search(probes, ask["k"])
            seconds.append(time.perf_counter() - start)
        answer: dict[str, Any] = {"seconds": seconds}
        if ask.get("answers"):
            answer["ids"] = ids.tolist()
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
