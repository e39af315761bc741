"""NumPy and C make the same codes, and the bound that certifies answers holds for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact import random_rows, unit

from facedex.search import codes, native

DIMENSIONS = [1, 2, 3, 8, 31, 64, 100, 128, 192, 260, 512]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_rotation_keeps_angles(dimension: int) -> None:
    rows = random_rows(1, 20, dimension)
    turned = codes.rotate(rows)
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, atol=4e-6)


@pytest.mark.parametrize("dimension", [32, 128, 192, 512])
def test_rotation_spreads_a_single_axis(dimension: int) -> None:
    assert np.abs(codes.rotate(np.eye(dimension, dtype=np.float32))).max() < 8 / np.sqrt(dimension)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_c_and_numpy_code_alike(dimension: int) -> None:
    if native.module is None:
        pytest.skip("the compiled kernel was not built")
    rows = random_rows(2, 70, dimension)
    turned = np.empty((70, codes.padded(dimension)), np.float32)
    native.module.rotate(dimension, 70, rows, turned)
    np.testing.assert_allclose(turned, codes.rotate(rows), atol=1e-6)
    quantizer = codes.fit(rows)
    results = []
    for with_c in (False, True):
        wide, blocks = codes.padded(dimension), codes.blocks(70)
        packed4, codes8 = np.zeros(blocks * wide * 16, np.uint8), np.zeros(blocks * wide * 32, np.uint8)
        e4, e8 = np.zeros(blocks, np.float32), np.zeros(70, np.float32)
        stats = np.zeros(codes.stats_size(dimension))
        stats[codes.STEP4], stats[codes.STEP8] = quantizer.step4, quantizer.step8
        if with_c:
            arrays = (packed4, codes8, e4, e8, stats)
            assert native.module.encode(dimension, 0, 70, rows, quantizer.mean, *arrays) == -1
        else:
            codes.encode(rows, 0, quantizer.mean, packed4, codes8, e4, e8, stats)
        results.append((packed4, codes8, e4, e8, stats))
    for mine, theirs in zip(results[0][2:], results[1][2:], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=1e-5)
    # a value on the edge between two codes may fall to either side
    assert np.mean(results[0][0] != results[1][0]) < 1e-2
    assert np.mean(results[0][1] != results[1][1]) < 1e-2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dimension=st.sampled_from(DIMENSIONS), edge=st.booleans())
def test_the_bound_holds(seed: int, dimension: int, edge: bool) -> None:
    """|similarity - similarity of the codes| <= error length * probe length, for any probe, even along the error."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, dimension))
    rows = unit(np.round(rows) if edge else rows)
    quantizer = codes.fit(rows)
    wide = codes.padded(dimension)
    packed4, codes8 = np.zeros(2 * wide * 16, np.uint8), np.zeros(2 * wide * 32, np.uint8)
    e4, e8, stats = np.zeros(2, np.float32), np.zeros(40, np.float32), np.zeros(codes.stats_size(dimension))
    stats[codes.STEP4], stats[codes.STEP8] = quantizer.step4, quantizer.step8
    codes.encode(rows, 0, quantizer.mean, packed4, codes8, e4, e8, stats)
    x = codes.rotate(rows).astype(np.float64)
    of8 = quantizer.mean + (codes8.reshape(-1, wide)[:40] - 128.0) * quantizer.step8
    nibbles = packed4.reshape(2, wide // 8, 32, 4)
    of4 = np.stack([nibbles & 15, nibbles >> 4], axis=2).transpose(0, 3, 1, 2, 4).reshape(64, wide)[:40]
    of4 = quantizer.mean + (of4 - 7.5) * quantizer.step4
    for coded, error in ((of8, e8), (of4, e4[np.arange(40) // 32])):
        worst = x - coded  # the probe that is hit hardest points along the error
        lengths = np.maximum(np.linalg.norm(worst, axis=1, keepdims=True), 1e-12)
        for probe in (worst / lengths, x):
            off = np.abs(np.einsum("nd,nd->n", x - coded, probe))
            assert (off <= error * np.linalg.norm(probe, axis=1) + 1e-6).all()


@given(data=st.binary(max_size=100))
def test_c_and_numpy_check_sums_alike(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    if native.module is None:
        pytest.skip("the compiled kernel was not built")
    assert native.module.checksum(array) == codes.checksum(array)


@settings(max_examples=60)
@given(data=st.binary(min_size=1, max_size=200), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_the_checksum(data: bytes, at: int, bit: int) -> None:
    array = np.frombuffer(data, np.uint8)
    flipped = array.copy()
    flipped[at % len(data)] ^= 1 << bit
    assert codes.checksum(array) != codes.checksum(flipped)
    assert codes.checksum(array) != codes.checksum(array[:-1])
