"""The exact index answers what the reference answers, whatever is thrown at it, on every kernel."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facedex.errors import ArgumentInvalid, DimensionMismatch, EmbeddingInvalid
from facedex.search import ExactIndex, Index, native, reference

Rows = npt.NDArray[np.float32]
PATIENT = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def unit(x: npt.ArrayLike) -> Rows:
    rows = np.asarray(x, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.where(lengths > 1e-9, rows / np.maximum(lengths, 1e-9), np.eye(1, rows.shape[1]))
    return rows.astype(np.float32)


def random_rows(seed: int, count: int, dimension: int) -> Rows:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def same(index: ExactIndex, rows: Rows, ids: npt.NDArray[np.int64], probes: Rows, k: int, **options: object) -> None:
    expected = reference.search(rows, ids, probes, k)
    similarities, found = index.search(probes, k, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected[1])
    np.testing.assert_array_equal(similarities, expected[0])
    assert similarities.dtype == np.float32
    assert found.dtype == np.int64


@st.composite
def galleries(draw: st.DrawFn) -> tuple[Rows, Rows, int]:
    """Rows that try to break a quantizer, probes, and k."""
    dimension = draw(st.sampled_from([1, 2, 3, 8, 17, 64, 128, 130, 192, 512]))
    count = draw(st.one_of(st.integers(1, 40), st.integers(41, 900), st.integers(901, 4000)))
    n_probes = draw(st.sampled_from([1, 2, 5, 30]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(
        st.sampled_from(["anywhere", "one label", "near ties", "axes", "flat", "crowded", "few values", "outlier"])
    )
    x = rng.standard_normal((count, dimension))
    if kind == "one label":
        x = np.repeat(x[:1], count, axis=0)
    elif kind == "near ties":  # neighbours in float32
        x = np.repeat(unit(x[:1]), count, axis=0)
        at = rng.integers(0, dimension, count)
        x[np.arange(count), at] = np.nextafter(x[np.arange(count), at], np.float32(2), dtype=np.float32)
    elif kind == "axes":
        x = np.sign(x[:, :1]) * np.eye(dimension)[rng.integers(0, dimension, count)]
    elif kind == "flat":
        x = np.sign(x)
    elif kind == "crowded":  # all around one direction, as uncentred embeddings are
        x = 20 * rng.standard_normal(dimension) + x
    elif kind == "few values":  # many land exactly on the edge between two codes
        x = np.round(x * 2)
    elif kind == "outlier":
        x[rng.integers(0, count)] = np.eye(dimension)[0] * 1e6
    rows = unit(x)
    probes = unit(rng.standard_normal((n_probes, dimension)))
    twin = rng.random(n_probes) < 0.5
    probes[twin] = rows[rng.integers(0, count, int(twin.sum()))]
    k = draw(st.one_of(st.integers(1, 12), st.sampled_from([count, count + 5, 100])))
    return rows, probes, k


@PATIENT
@given(case=galleries(), shuffle=st.integers(0, 9), threads=st.integers(1, 3))
def test_the_answer_is_the_one_of_the_reference(
    kernel: str, case: tuple[Rows, Rows, int], shuffle: int, threads: int
) -> None:
    rows, probes, k = case
    ids = np.random.default_rng(shuffle).permutation(len(rows)).astype(np.int64) * 7
    index = ExactIndex.build(rows, ids, kernel=kernel)
    assert index.kernel == kernel
    same(index, rows, ids, probes, k, threads=threads)


def test_ten_thousand_near_ties_come_in_the_right_order(kernel: str) -> None:
    rng = np.random.default_rng(5)
    ann = unit(rng.standard_normal((1, 128)))
    rows = unit(ann + 1e-4 * rng.standard_normal((10_000, 128)))
    rows[::7] = rows[0]
    same(ExactIndex.build(rows, kernel=kernel), rows, np.arange(10_000), np.concatenate([ann, rows[:40]]), 25)


@pytest.mark.parametrize(("count", "dimension"), [(10, 128), (1000, 192), (20_000, 128), (5000, 512)])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_galleries_of_every_size(kernel: str, count: int, dimension: int, k: int) -> None:
    rows = random_rows(1, count, dimension)
    index = ExactIndex.build(rows, kernel=kernel)
    for n_probes in (1, 9, 33):
        same(index, rows, np.arange(count), random_rows(2, n_probes, dimension), k)


def test_a_large_batch_on_two_threads(kernel: str) -> None:
    rows = random_rows(3, 3000, 128)
    same(ExactIndex.build(rows, kernel=kernel), rows, np.arange(3000), random_rows(4, 400, 128), 10, threads=2)


def test_the_reference_adds_up_to_the_exact_sum() -> None:
    rows, probe = random_rows(6, 5, 100), random_rows(7, 1, 100)[0]
    exact = [
        float(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, probe, strict=True))) for row in rows
    ]
    np.testing.assert_allclose(reference.similarities(rows, probe), exact, rtol=0, atol=1e-15)


def test_the_same_face_scores_one_and_comes_first(kernel: str) -> None:
    rows = random_rows(8, 500, 128)
    similarities, ids = ExactIndex.build(rows, kernel=kernel).search(rows[42:43], 3)
    assert ids[0, 0] == 42
    assert similarities[0, 0] == pytest.approx(1, abs=1e-6)


def test_of_equal_faces_the_lower_id_comes_first(kernel: str) -> None:
    rows = np.repeat(random_rows(9, 1, 64), 200, axis=0)
    ids = np.arange(200)[::-1].copy()
    _, found = ExactIndex.build(rows, ids, kernel=kernel).search(rows[:1], 5)
    assert found.tolist() == [[0, 1, 2, 3, 4]]


def test_missing_answers_are_minus_one_and_minus_infinity(kernel: str) -> None:
    rows = random_rows(10, 2, 16)
    similarities, ids = ExactIndex.build(rows, kernel=kernel).search(rows[:1], 4)
    assert ids[0, 0] == 0
    assert ids[0, 2:].tolist() == [-1, -1]
    assert similarities[0, 2:].tolist() == [-math.inf, -math.inf]


def test_an_empty_index_finds_nobody(kernel: str) -> None:
    similarities, ids = ExactIndex(16, kernel).search(random_rows(1, 2, 16), 3)
    assert (ids == -1).all()
    assert (similarities == -np.inf).all()


@pytest.mark.parametrize("ids", ["no gaps", "gaps", "far apart", "shuffled"])
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_allowed_ids_are_found_however_ids_lie(kernel: str, ids: str, share: float) -> None:
    rng = np.random.default_rng(3)
    rows = random_rows(1, 700, 16)
    held = {
        "no gaps": np.arange(5, 705), "gaps": np.arange(700) * 3, "far apart": np.arange(700) * 10**12,
        "shuffled": rng.permutation(700),
    }[ids]  # fmt: skip
    index = ExactIndex.build(rows, held, kernel=kernel)
    index.remove(held[::9])
    chosen = rng.random(700) < share
    allowed = rng.permutation(np.concatenate([held[chosen], [-4, -1, 2**62, int(held.max()) + 1]]))
    passing = chosen & (np.arange(700) % 9 != 0)
    same(index, rows[passing], held[passing], random_rows(2, 30, 16), 12, where=allowed)


def test_no_probes_no_answers(kernel: str) -> None:
    similarities, ids = ExactIndex.build(random_rows(1, 50, 16), kernel=kernel).search(np.empty((0, 16), np.float32), 3)
    assert similarities.shape == ids.shape == (0, 3)


@PATIENT
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_a_history_of_adding_and_removing(kernel: str, seed: int, steps: list[int]) -> None:
    rng = np.random.default_rng(seed)
    index, known = ExactIndex(40, kernel), dict[int, Rows]()
    for step in steps:
        rows = unit(rng.standard_normal((step, 40)))
        ids = rng.choice(10_000, step, replace=False)
        fresh = np.array([i not in known for i in ids])
        index.add(rows[fresh], ids[fresh])
        known.update(zip(ids[fresh].tolist(), rows[fresh], strict=True))
        gone = [i for i in known if rng.random() < 0.3]
        assert index.remove([*gone, 99_999]) == len(gone)
        for i in gone:
            del known[i]
        assert len(index) == len(known)
        assert sorted(index.ids.tolist()) == sorted(known)
        held = np.array(list(known.values()), dtype=np.float32).reshape(-1, 40)
        same(index, held, np.array(list(known), dtype=np.int64), unit(rng.standard_normal((3, 40))), 8)


@PATIENT
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.003, 0.3, 0.9, 1.0]),
    n_probes=st.sampled_from([1, 30]),
)
def test_a_filter_gives_the_best_of_those_that_pass(kernel: str, seed: int, share: float, n_probes: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((1500, 64)))
    ids = rng.permutation(1500).astype(np.int64)
    index = ExactIndex.build(rows[:1200], ids[:1200], kernel=kernel)
    index.add(rows[1200:], ids[1200:])
    index.remove(ids[::5])
    alive = np.arange(1500) % 5 != 0
    chosen = rng.random(1500) < share
    probes = unit(rng.standard_normal((n_probes, 64)))
    keep = alive & chosen
    allowed = np.sort(ids[chosen])
    mask = np.isin(index.ids, allowed)
    for where in (allowed, set(allowed.tolist()), mask, lambda i: np.isin(i, allowed), index.filter(allowed)):
        same(index, rows[keep], ids[keep], probes, 10, where=where)


def test_a_filter_made_before_still_holds_after_changes(kernel: str) -> None:
    rows = random_rows(11, 300, 32)
    index = ExactIndex.build(rows[:200], kernel=kernel)
    even = index.filter(lambda ids: ids % 2 == 0)
    index.add(rows[200:])
    index.remove([0, 4])
    keep = np.array([i for i in range(0, 200, 2) if i not in (0, 4)])
    same(index, rows[keep], keep, rows[:3], 5, where=even)


def test_batches_build_the_same_index(kernel: str) -> None:
    rows = random_rows(12, 5000, 64)
    index = ExactIndex.build((rows[i : i + 700] for i in range(0, 5000, 700)), kernel=kernel)
    assert len(index) == 5000
    same(index, rows, np.arange(5000), rows[:4], 10)


def test_an_id_may_come_back_with_another_face(kernel: str) -> None:
    rows = random_rows(13, 100, 32)
    index = ExactIndex.build(rows, kernel=kernel)
    index.remove([7])
    index.add(-rows[7:8], [7])
    similarities, ids = index.search(-rows[7:8], 1)
    assert ids.tolist() == [[7]]
    assert similarities[0, 0] == pytest.approx(1, abs=1e-6)
    assert 7 not in index.search(rows[7:8], 50)[1]
    assert index.remove([7]) == 1
    assert 7 not in index


def test_a_search_leaves_its_probe_untouched(kernel: str) -> None:
    rows = random_rows(14, 100, 32)
    before = rows.copy()
    ExactIndex.build(rows, kernel=kernel).search(rows, 3)
    np.testing.assert_array_equal(rows, before)


def test_arrays_in_any_memory_order_are_fine(kernel: str) -> None:
    rows = random_rows(15, 64, 32)
    index = ExactIndex.build(np.asfortranarray(rows), kernel=kernel)
    wide = np.zeros((3, 64), np.float32)
    wide[:, ::2] = rows[:3]
    same(index, rows, np.arange(64), wide[:, ::2], 3)


def test_a_mapped_array_is_an_array(kernel: str, tmp_path: Path) -> None:
    rows = random_rows(17, 300, 32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    same(ExactIndex.build(mapped, kernel=kernel), rows, np.arange(300), mapped[:3], 4)


def test_changing_the_array_afterwards_changes_nothing(kernel: str) -> None:
    rows = random_rows(16, 400, 32)
    mine = rows.copy()
    index = ExactIndex.build(mine, kernel=kernel)
    mine[:] = 0
    same(index, rows, np.arange(400), rows[:2], 5)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", None])
def test_k_must_be_a_positive_whole_number(kernel: str, k: object) -> None:
    index = ExactIndex.build(random_rows(1, 4, 8), kernel=kernel)
    with pytest.raises(ArgumentInvalid):
        index.search(random_rows(1, 1, 8), k)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -2, 2.5])
def test_threads_must_be_a_positive_whole_number(kernel: str, threads: object) -> None:
    with pytest.raises(ArgumentInvalid):
        ExactIndex.build(random_rows(1, 4, 8), kernel=kernel).search(random_rows(1, 1, 8), 1, threads)  # type: ignore[arg-type]


def test_another_dimension_is_refused(kernel: str) -> None:
    index = ExactIndex.build(random_rows(1, 4, 8), kernel=kernel)
    with pytest.raises(DimensionMismatch) as refused:
        index.search(random_rows(1, 1, 9))
    assert refused.value.dimension == 8
    with pytest.raises(DimensionMismatch):
        index.add(random_rows(1, 1, 7))


@pytest.mark.parametrize(
    "bad",
    [
        np.full((1, 8), np.nan, np.float32), np.full((1, 8), np.inf, np.float32), np.zeros((1, 8), np.float32),
        np.full((1, 8), 1, np.float32), np.eye(1, 8), np.eye(1, 8, dtype=np.float32)[0],
        np.eye(1, 8, dtype=np.float32)[None], [[1.0] + [0.0] * 7], np.eye(1, 8, dtype=np.int32),
    ],
    ids=["nan", "inf", "zero", "long", "float64", "one-dimensional", "three-dimensional", "list", "int"],
)  # fmt: skip
def test_what_is_no_unit_float32_row_is_refused(kernel: str, bad: Rows) -> None:
    for rows in (random_rows(1, 4, 8), random_rows(1, 4000, 8)):
        index = ExactIndex.build(rows, kernel=kernel)
        with pytest.raises(EmbeddingInvalid):
            index.search(bad)
        with pytest.raises(EmbeddingInvalid):
            index.add(bad)
        assert len(index) == len(rows)


def test_the_row_at_fault_is_named(kernel: str) -> None:
    rows = random_rows(1, 5000, 16)
    probes = rows[:40].copy()
    probes[33] *= 2
    with pytest.raises(EmbeddingInvalid) as refused:
        ExactIndex.build(rows, kernel=kernel).search(probes)
    assert refused.value.row == 33
    assert refused.value.length == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    "ids", [[0, 0], [-1, 5], [1], [1, 2, 3], [0.5, 1.0], [[1, 2]], ["a", "b"], [1, 2**63]], ids=str
)
def test_ids_must_be_distinct_whole_and_as_many_as_rows(kernel: str, ids: object) -> None:
    with pytest.raises(ArgumentInvalid):
        ExactIndex.build(random_rows(1, 2, 8), ids, kernel=kernel)  # type: ignore[arg-type]


def test_an_id_in_use_is_refused_and_nothing_is_added(kernel: str) -> None:
    index = ExactIndex.build(random_rows(1, 5, 8), kernel=kernel)
    with pytest.raises(ArgumentInvalid):
        index.add(random_rows(2, 2, 8), [9, 3])
    assert len(index) == 5
    assert 9 not in index


@pytest.mark.parametrize(
    "where", [np.ones(3, bool), lambda ids: ids, lambda ids: [True]], ids=["length", "dtype", "shape"]
)
def test_a_filter_that_does_not_fit_is_refused(kernel: str, where: object) -> None:
    with pytest.raises(ArgumentInvalid):
        ExactIndex.build(random_rows(1, 5, 8), kernel=kernel).search(random_rows(1, 1, 8), where=where)  # type: ignore[arg-type]


def test_dimensions_beyond_the_proof_are_refused() -> None:
    for dimension in (0, 4097):
        with pytest.raises(ArgumentInvalid):
            ExactIndex(dimension)
    rows = random_rows(1, 300, 4096)
    same(ExactIndex.build(rows), rows, np.arange(300), rows[:2], 3)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ArgumentInvalid):
        ExactIndex(8, "abacus")
    assert native.kernels()[-1] == "numpy"


def test_it_keeps_the_contract() -> None:
    assert isinstance(ExactIndex(8), Index)


def test_the_hot_memory_of_a_million_faces_stays_below_220_megabytes() -> None:
    if native.module is None:
        pytest.skip("the compiled kernel was not built")
    index = ExactIndex.build(random_rows(1, 20_000, 128))
    assert index.hot_bytes / 20_000 * 1e6 < 220e6
