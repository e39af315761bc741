from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

class Segment:
    def __new__(
        cls,
        dimension: int,
        capacity: int,
        packed4: _Array,
        codes8: _Array,
        e4: _Array,
        e8: _Array,
        mean: _Array,
        stats: _Array,
        rows: _Array,
        ids: _Array,
        live: _Array,
        /,
    ) -> Segment: ...

def encode(
    dimension: int,
    first: int,
    n: int,
    rows: _Array,
    mean: _Array,
    packed4: _Array,
    codes8: _Array,
    e4: _Array,
    e8: _Array,
    stats: _Array,
    /,
) -> int: ...
def rotate(dimension: int, n: int, rows: _Array, out: _Array, /) -> None: ...
def search(
    dimension: int,
    segments: tuple[Segment, ...],
    counts: tuple[int, ...],
    filters: tuple[_Array | None, ...] | None,
    probes: _Array,
    n_probes: int,
    k: int,
    threads: int,
    similarities: _Array,
    ids: _Array,
    scores: _Array | None,
    kernel: str | None,
    /,
) -> tuple[int, int, int]: ...
def checksum(data: _Array, /) -> int: ...
def kernels() -> list[str]: ...
