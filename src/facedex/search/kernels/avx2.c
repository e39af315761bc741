/* AVX2 has no 8-bit dot product into int32, only vpmaddubsw: u8 x s8, neighbours added, saturated to int16.
 *
 * Widening each result to int32 would double the instructions.  Instead the int16 results are summed as they are,
 * modulo 2^16, over up to 128 dimensions: the offset of the codes is taken out beforehand (`init`), and the probe's
 * scale is chosen such that the *final* sum fits int16 by Cauchy-Schwarz, so whatever wraps on the way wraps back.
 * What must never saturate is one pair of products: 2*15*127 with 4-bit codes, 2*255*63 with 8-bit codes.
 * So 32 products cost one multiply and one add: the best this instruction set allows.
 */
#include "kernels.h"

#ifdef FACEDEX_HAVE_AVX2
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,popcnt")))
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE __m256i broadcast(const int8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* x stays in its register: GCC would load it again for the next probe, and loads are what is short. */
#define KEEP(x) __asm__("" : "+x"(x))

/* acc += dot of pairs, modulo 2^16 */
INLINE __m256i add_pairs(__m256i acc, __m256i codes, __m256i probe)
{
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16(codes, probe));
}

INLINE uint32_t above(const __m256i sum[4], int32_t thr)
{
    const __m256i t = _mm256_set1_epi32(thr);
    const __m256i m0 = _mm256_cmpgt_epi32(sum[0], t), m1 = _mm256_cmpgt_epi32(sum[1], t);
    const __m256i m2 = _mm256_cmpgt_epi32(sum[2], t), m3 = _mm256_cmpgt_epi32(sum[3], t);
    const __m256i any = _mm256_or_si256(_mm256_or_si256(m0, m1), _mm256_or_si256(m2, m3));
    if (__builtin_expect(_mm256_testz_si256(any, any), 1))
        return 0;
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m0)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m1)) << 8 |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m2)) << 16 |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m3)) << 24;
}

/* 8 x 8 words of 32 bits */
INLINE void transpose(__m256i r[8])
{
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        const __m256i low = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
        r[i] = low;
    }
}

TARGET static void scan4(const uint8_t *packed, size_t n_blocks, size_t n_groups, const int8_t *probe,
                         const int32_t *init, int32_t total, const int32_t *thr, uint32_t *masks)
{
    (void)total;
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (size_t b = 0; b < n_blocks; b++) {
        __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                          _mm256_setzero_si256()};
        const int8_t *p = probe;
        for (size_t g = 0, chunk = 0; g < n_groups; chunk++) {
            const size_t end = g + CHUNK_GROUPS < n_groups ? g + CHUNK_GROUPS : n_groups;
            __m256i acc[4];
            for (int v = 0; v < 4; v++)
                acc[v] = _mm256_set1_epi32(init[chunk]);
            for (; g < end; g += 2, packed += 128, p += 8) {
                const __m256i p0 = broadcast(p), p1 = broadcast(p + 4);
                _mm_prefetch((const char *)packed + 4096, _MM_HINT_T0);
                _mm_prefetch((const char *)packed + 4160, _MM_HINT_T0);
                for (int v = 0; v < 4; v++) {
                    const __m256i x = load(packed + 32 * v);
                    acc[v] = add_pairs(acc[v], _mm256_and_si256(x, low), p0);
                    acc[v] = add_pairs(acc[v], _mm256_and_si256(_mm256_srli_epi16(x, 4), low), p1);
                }
            }
            for (int v = 0; v < 4; v++)
                sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(acc[v], ones));
        }
        masks[b] = above(sum, thr[b]);
    }
}

#define UNROLL _Pragma("GCC unroll 8")

/* 32 rows x P probes with all sums in registers: P = 2 needs 8 sums, 2 broadcasts, a row register and a product.
 * Beyond one chunk the int32 sums wait in memory. */
#define SCAN8_TILE(P)                                                                                                  \
    INLINE void sum_chunk##P(const uint8_t *block, size_t n_groups, const int8_t *probes, size_t stride,               \
                             const int32_t *init, size_t init_stride, __m256i acc[P][4])                               \
    {                                                                                                                  \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            UNROLL for (int v = 0; v < 4; v++)                                                                         \
                acc[q][v] = _mm256_set1_epi32(init[q * init_stride]);                                                  \
        for (size_t g = 0; g < n_groups; g++, block += 128, probes += 4) {                                             \
            __m256i p[P];                                                                                              \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                p[q] = broadcast(probes + q * stride);                                                                 \
            UNROLL for (int v = 0; v < 4; v++) {                                                                       \
                __m256i x = load(block + 32 * v);                                                                      \
                KEEP(x);                                                                                               \
                UNROLL for (int q = 0; q < P; q++)                                                                     \
                    acc[q][v] = add_pairs(acc[q][v], x, p[q]);                                                         \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            UNROLL for (int v = 0; v < 4; v++)                                                                         \
                acc[q][v] = _mm256_madd_epi16(acc[q][v], _mm256_set1_epi16(1));                                        \
    }                                                                                                                  \
                                                                                                                       \
    TARGET static void scan8_tile##P(const uint8_t *block, size_t n_groups, const int8_t *probes, size_t stride,       \
                                     const int32_t *init, size_t init_stride, const int32_t *thr, uint32_t *masks,     \
                                     int32_t *scores)                                                                  \
    {                                                                                                                  \
        __m256i acc[P][4];                                                                                             \
        if (n_groups <= CHUNK_GROUPS)                                                                                  \
            sum_chunk##P(block, n_groups, probes, stride, init, init_stride, acc);                                     \
        else {                                                                                                         \
            __m256i part[P][4];                                                                                        \
            sum_chunk##P(block, CHUNK_GROUPS, probes, stride, init, init_stride, acc);                                 \
            for (size_t g = CHUNK_GROUPS; g < n_groups; g += CHUNK_GROUPS) {                                           \
                const size_t left = n_groups - g < CHUNK_GROUPS ? n_groups - g : CHUNK_GROUPS;                         \
                sum_chunk##P(block + 128 * g, left, probes + 4 * g, stride, init + g / CHUNK_GROUPS, init_stride,      \
                             part);                                                                                    \
                for (int q = 0; q < P; q++)                                                                            \
                    for (int v = 0; v < 4; v++)                                                                        \
                        acc[q][v] = _mm256_add_epi32(acc[q][v], part[q][v]);                                           \
            }                                                                                                          \
        }                                                                                                              \
        if (scores) {                                                                                                  \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                UNROLL for (int v = 0; v < 4; v++)                                                                     \
                    _mm256_storeu_si256((__m256i *)(scores + q * BLOCK + 8 * v), acc[q][v]);                           \
            return;                                                                                                    \
        }                                                                                                              \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            masks[q] = above(acc[q], thr[q]);                                                                          \
    }
SCAN8_TILE(1)
SCAN8_TILE(2)

TARGET static void scan8(const uint8_t *block, size_t n_groups, size_t n_probes, const int8_t *probes, size_t stride,
                         const int32_t *init, size_t init_stride, const int32_t *total, const int32_t *thr,
                         uint32_t *masks, int32_t *scores)
{
    (void)total;
    size_t q = 0;
    for (; q + 2 <= n_probes; q += 2)
        scan8_tile2(block, n_groups, probes + q * stride, stride, init + q * init_stride, init_stride, thr + q,
                    masks + q, scores ? scores + q * BLOCK : NULL);
    if (q < n_probes)
        scan8_tile1(block, n_groups, probes + q * stride, stride, init + q * init_stride, init_stride, thr + q,
                    masks + q, scores ? scores + q * BLOCK : NULL);
}

TARGET static int32_t refine(const uint8_t *code, const int16_t *probe, size_t n)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    size_t d = 0;
    for (; d + 32 <= n; d += 32) {
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + d))),
                                                  load(probe + d)));
        b = _mm256_add_epi32(
            b, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + d + 16))),
                                 load(probe + d + 16)));
    }
    a = _mm256_add_epi32(a, b);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s) + facedex_refine_portable(code + d, probe + d, n - d);
}

/* eight lanes in halves */
INLINE double folded(__m256d lo, __m256d hi)
{
    const __m256d four = _mm256_add_pd(lo, hi);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

TARGET static double dot(const float *row, const double *probe, size_t n)
{
    __m256d lo = _mm256_setzero_pd(), hi = lo;
    size_t d = 0;
    for (; d + 8 <= n; d += 8) {
        lo = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(row + d)), _mm256_loadu_pd(probe + d), lo);
        hi = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(row + d + 4)), _mm256_loadu_pd(probe + d + 4), hi);
    }
    if (d < n) { /* zeros add nothing to the lanes beyond the end */
        float r[8] = {0};
        double p[8] = {0};
        memcpy(r, row + d, (n - d) * sizeof *r);
        memcpy(p, probe + d, (n - d) * sizeof *p);
        lo = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(r)), _mm256_loadu_pd(p), lo);
        hi = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(r + 4)), _mm256_loadu_pd(p + 4), hi);
    }
    return folded(lo, hi);
}

/* Each row is a chain of additions that wait for each other: four of them at once keep the adders busy. */
TARGET static void dot_gather(const float *const *rows, size_t n_rows, size_t n, const double *probe, double *out)
{
    if (n_rows == 1) {
        out[0] = dot(rows[0], probe, n);
        return;
    }
    const float *row[GATHER];
    for (size_t r = 0; r < GATHER; r++)
        row[r] = rows[r < n_rows ? r : n_rows - 1];
    __m256d acc[GATHER][2];
    UNROLL for (int r = 0; r < GATHER; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_pd();
    size_t d = 0;
    for (; d + 8 <= n; d += 8)
        UNROLL for (int h = 0; h < 2; h++) {
            const __m256d p = _mm256_loadu_pd(probe + d + 4 * h);
            UNROLL for (int r = 0; r < GATHER; r++)
                acc[r][h] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(row[r] + d + 4 * h)), p, acc[r][h]);
        }
    if (d < n)
        UNROLL for (int r = 0; r < GATHER; r++) {
            float x[8] = {0}; /* zeros add nothing to the lanes beyond the end */
            memcpy(x, row[r] + d, (n - d) * sizeof *x);
            UNROLL for (int h = 0; h < 2; h++)
                acc[r][h] = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(x + 4 * h)),
                                            _mm256_loadu_pd(probe + d + 4 * h), acc[r][h]);
        }
    double all[GATHER];
    UNROLL for (int r = 0; r < GATHER; r++)
        all[r] = folded(acc[r][0], acc[r][1]);
    memcpy(out, all, n_rows * sizeof *out);
}

/* 4 rows x P probes, half of the lanes at a time, so that all sums stay in registers: every row is converted once for P
 * probes, every probe read once for 4 rows.  Rows beyond the last are the last one again. */
#define DOTS_TILE(P)                                                                                                   \
    TARGET static void dots_tile##P(const float *const row[4], size_t n, const double *probes, size_t stride,          \
                                    __m128i rest[2], size_t n_rows, double *out, size_t out_stride)                    \
    {                                                                                                                  \
        __m256d half[P][4];                                                                                            \
        UNROLL for (int h = 0; h < 2; h++)                                                                             \
        {                                                                                                              \
            __m256d acc[P][4];                                                                                         \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                UNROLL for (int r = 0; r < 4; r++)                                                                     \
                    acc[q][r] = _mm256_setzero_pd();                                                                   \
            size_t d = 4 * (size_t)h;                                                                                  \
            for (; d + 4 <= n; d += 8) {                                                                               \
                __m256d p[P];                                                                                          \
                UNROLL for (int q = 0; q < P; q++)                                                                     \
                    p[q] = _mm256_loadu_pd(probes + q * stride + d);                                                   \
                UNROLL for (int r = 0; r < 4; r++) {                                                                   \
                    const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps(row[r] + d));                                       \
                    UNROLL for (int q = 0; q < P; q++)                                                                 \
                        acc[q][r] = _mm256_fmadd_pd(x, p[q], acc[q][r]);                                               \
                }                                                                                                      \
            }                                                                                                          \
            if (d < n) /* zeros add nothing to the lanes beyond the end */                                             \
                UNROLL for (int r = 0; r < 4; r++) {                                                                   \
                    const __m256d x = _mm256_cvtps_pd(_mm_maskload_ps(row[r] + d, rest[h]));                           \
                    UNROLL for (int q = 0; q < P; q++)                                                                 \
                        acc[q][r] = _mm256_fmadd_pd(x, _mm256_loadu_pd(probes + q * stride + d), acc[q][r]);           \
                }                                                                                                      \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                UNROLL for (int r = 0; r < 4; r++)                                                                     \
                    half[q][r] = h ? _mm256_add_pd(half[q][r], acc[q][r]) : acc[q][r];                                 \
        }                                                                                                              \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            for (size_t r = 0; r < n_rows; r++) {                                                                      \
                const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(half[q][r]),                                     \
                                               _mm256_extractf128_pd(half[q][r], 1));                                  \
                out[q * out_stride + r] = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));                   \
            }                                                                                                          \
    }
DOTS_TILE(1)
DOTS_TILE(3)

TARGET static void dots(const float *rows, size_t n_rows, size_t n, const double *probes, size_t stride,
                        size_t n_probes, double *out)
{
    const int over = (int)(n % 8); /* lanes of the last, incomplete eight */
    const __m128i at = _mm_setr_epi32(0, 1, 2, 3);
    __m128i rest[2] = {_mm_cmpgt_epi32(_mm_set1_epi32(over), at), _mm_cmpgt_epi32(_mm_set1_epi32(over - 4), at)};
    for (size_t r = 0; r < n_rows; r += 4) {
        const size_t here = n_rows - r < 4 ? n_rows - r : 4;
        const float *row[4];
        for (size_t i = 0; i < 4; i++)
            row[i] = rows + (r + (i < here ? i : here - 1)) * n;
        size_t q = 0;
        for (; q + 3 <= n_probes; q += 3)
            dots_tile3(row, n, probes + q * stride, stride, rest, here, out + q * n_rows + r, n_rows);
        for (; q < n_probes; q++)
            dots_tile1(row, n, probes + q * stride, stride, rest, here, out + q * n_rows + r, n_rows);
    }
}

/* 4 R rows x P probes, 12 sums: the lanes run along the dimension, so that nothing has to be transposed; four sums of
 * four rows become one register at the end.  Rows beyond the last are the last one again. */
#define PRODUCTS_TILE(R, P)                                                                                            \
    TARGET static void products_tile##R##x##P(const float *const row[4 * R], size_t n, const float *probes,            \
                                              size_t probe_stride, __m256i rest, float *out, size_t stride)            \
    {                                                                                                                  \
        __m256 acc[P][4 * R];                                                                                          \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            UNROLL for (int r = 0; r < 4 * R; r++)                                                                     \
                acc[q][r] = _mm256_setzero_ps();                                                                       \
        size_t d = 0;                                                                                                  \
        for (; d + 8 <= n; d += 8) {                                                                                   \
            __m256 p[P];                                                                                               \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                p[q] = _mm256_loadu_ps(probes + q * probe_stride + d);                                                 \
            UNROLL for (int r = 0; r < 4 * R; r++) {                                                                   \
                const __m256 x = _mm256_loadu_ps(row[r] + d);                                                          \
                UNROLL for (int q = 0; q < P; q++)                                                                     \
                    acc[q][r] = _mm256_fmadd_ps(x, p[q], acc[q][r]);                                                   \
            }                                                                                                          \
        }                                                                                                              \
        if (d < n)                                                                                                     \
            UNROLL for (int q = 0; q < P; q++) {                                                                       \
                const __m256 p = _mm256_maskload_ps(probes + q * probe_stride + d, rest);                              \
                UNROLL for (int r = 0; r < 4 * R; r++)                                                                 \
                    acc[q][r] = _mm256_fmadd_ps(_mm256_maskload_ps(row[r] + d, rest), p, acc[q][r]);                   \
            }                                                                                                          \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            UNROLL for (int r = 0; r < 4 * R; r += 4) {                                                                \
                const __m256 sum = _mm256_hadd_ps(_mm256_hadd_ps(acc[q][r], acc[q][r + 1]),                            \
                                                  _mm256_hadd_ps(acc[q][r + 2], acc[q][r + 3]));                       \
                _mm_storeu_ps(out + q * stride + r,                                                                    \
                              _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));                 \
            }                                                                                                          \
    }
PRODUCTS_TILE(2, 1)
PRODUCTS_TILE(1, 2)
PRODUCTS_TILE(1, 3)

TARGET void facedex_avx2_panel(const float *rows, size_t n_rows, size_t n, size_t depth, size_t width, float *panel)
{
    for (size_t r = 0; r < width; r += 8) {
        const float *row[8];
        for (size_t i = 0; i < 8; i++)
            row[i] = rows + (r + i < n_rows ? r + i : n_rows - 1) * n;
        size_t d = 0;
        for (; d + 8 <= depth; d += 8) {
            __m256i x[8];
            for (int i = 0; i < 8; i++)
                x[i] = load(row[i] + d);
            transpose(x);
            for (int i = 0; i < 8; i++)
                _mm256_storeu_si256((__m256i *)(panel + (d + i) * width + r), x[i]);
        }
        for (; d < depth; d++)
            for (size_t i = 0; i < 8; i++)
                panel[d * width + r + i] = row[i][d];
    }
}

#define LANES 8
#define MOST 6
#define VEC __m256
#define VZERO _mm256_setzero_ps()
#define VLOAD _mm256_loadu_ps
#define VSTORE _mm256_storeu_ps
#define VSPLAT _mm256_set1_ps
#define VFMA _mm256_fmadd_ps
#include "panels.h"

TARGET static void products(const float *rows, size_t n_rows, size_t n, const float *probes, size_t probe_stride,
                            size_t n_probes, float *out, size_t stride)
{
    if (n_probes >= 16) { /* enough to pay for the transposition */
        panel_products(rows, n_rows, n, probes, probe_stride, n_probes, out, stride);
        return;
    }
    const __m256i rest = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n % 8)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (size_t r = 0; r < n_rows; r += 8) {
        const float *row[8];
        for (size_t i = 0; i < 8; i++)
            row[i] = rows + (r + i < n_rows ? r + i : n_rows - 1) * n;
        const size_t halves = n_rows - r > 4 ? 2 : 1;
        size_t q = 0;
        if (n_probes > 1)
            for (size_t h = 0; h < halves; h++) {
                for (q = 0; q + 3 <= n_probes && q + 4 != n_probes; q += 3) /* two and two, not three and one */
                    products_tile1x3(row + 4 * h, n, probes + q * probe_stride, probe_stride, rest,
                                     out + q * stride + r + 4 * h, stride);
                for (; q + 2 <= n_probes; q += 2)
                    products_tile1x2(row + 4 * h, n, probes + q * probe_stride, probe_stride, rest,
                                     out + q * stride + r + 4 * h, stride);
            }
        else
            products_tile2x1(row, n, probes, probe_stride, rest, out + r, stride);
    }
}

TARGET static double dot32(const float *row, const float *probe, size_t n)
{
    __m256d lo = _mm256_setzero_pd(), hi = lo;
    size_t d = 0;
    for (; d + 8 <= n; d += 8) {
        lo = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(row + d)), _mm256_cvtps_pd(_mm_loadu_ps(probe + d)), lo);
        hi = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(row + d + 4)), _mm256_cvtps_pd(_mm_loadu_ps(probe + d + 4)),
                             hi);
    }
    if (d < n) {
        float r[8] = {0}, p[8] = {0};
        memcpy(r, row + d, (n - d) * sizeof *r);
        memcpy(p, probe + d, (n - d) * sizeof *p);
        lo = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(r)), _mm256_cvtps_pd(_mm_loadu_ps(p)), lo);
        hi = _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(r + 4)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4)), hi);
    }
    return folded(lo, hi);
}

TARGET static double widen(const float *x, size_t n, double *out)
{
    __m256d sum[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    size_t d = 0;
    for (; d + 8 <= n; d += 8)
        UNROLL for (int h = 0; h < 2; h++) {
            const __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x + d + 4 * h));
            sum[h] = _mm256_fmadd_pd(v, v, sum[h]);
            _mm256_storeu_pd(out + d + 4 * h, v);
        }
    double lane[4];
    _mm256_storeu_pd(lane, _mm256_add_pd(sum[0], sum[1]));
    return (lane[0] + lane[1]) + (lane[2] + lane[3]) + (d < n ? facedex_widen_portable(x + d, n - d, out + d) : 0);
}

TARGET static float square(const float *x, size_t n)
{
    __m256 acc[4];
    UNROLL for (int i = 0; i < 4; i++)
        acc[i] = _mm256_setzero_ps();
    size_t d = 0;
    for (; d + 32 <= n; d += 32)
        UNROLL for (int i = 0; i < 4; i++) {
            const __m256 v = _mm256_loadu_ps(x + d + 8 * i);
            acc[i] = _mm256_fmadd_ps(v, v, acc[i]);
        }
    float lane[8];
    _mm256_storeu_ps(lane, _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
    float sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    for (; d < n; d++)
        sum += x[d] * x[d];
    return sum;
}

TARGET static float largest(const float *values, size_t n_blocks)
{
    __m256 best[4];
    UNROLL for (int v = 0; v < 4; v++)
        best[v] = _mm256_loadu_ps(values + 8 * v);
    for (size_t b = 1; b < n_blocks; b++)
        UNROLL for (int v = 0; v < 4; v++)
            best[v] = _mm256_max_ps(best[v], _mm256_loadu_ps(values + b * BLOCK + 8 * v));
    const __m256 eight = _mm256_max_ps(_mm256_max_ps(best[0], best[1]), _mm256_max_ps(best[2], best[3]));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

TARGET static size_t reach(const float *values, size_t n_blocks, float cut, uint32_t *masks)
{
    const __m256 t = _mm256_set1_ps(cut);
    size_t count = 0;
    for (size_t b = 0; b < n_blocks; b++, values += BLOCK) {
        uint32_t m[4];
        UNROLL for (int v = 0; v < 4; v++)
            m[v] = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(values + 8 * v), t, _CMP_GE_OQ));
        masks[b] = m[0] | m[1] << 8 | m[2] << 16 | m[3] << 24;
        count += (size_t)_mm_popcnt_u32(masks[b]);
    }
    return count;
}

TARGET static void unpack4(const uint8_t *packed, size_t n_groups, uint8_t *block)
{
    const __m256i low = _mm256_set1_epi8(15);
    for (size_t j = 0; j < n_groups / 2; j++, packed += 128, block += 256)
        for (int v = 0; v < 4; v++) {
            const __m256i x = load(packed + 32 * v);
            _mm256_storeu_si256((__m256i *)(block + 32 * v), _mm256_and_si256(x, low));
            _mm256_storeu_si256((__m256i *)(block + 128 + 32 * v), _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
        }
}

TARGET static void unpack8(const uint8_t *codes, size_t n_groups, uint8_t *block)
{
    const size_t row = n_groups * 4;
    size_t g = 0;
    for (; g + 8 <= n_groups; g += 8)
        for (int v = 0; v < 4; v++) {
            const uint8_t *c = codes + (size_t)v * 8 * row + g * 4;
            __m256i r[8];
            for (int i = 0; i < 8; i++)
                r[i] = load(c + (size_t)i * row);
            transpose(r);
            for (int i = 0; i < 8; i++)
                _mm256_storeu_si256((__m256i *)(block + g * 128 + 32 * v + 128 * i), r[i]);
        }
    for (int r = 0; r < BLOCK; r++)
        for (size_t h = g; h < n_groups; h++)
            memcpy(block + h * 128 + 4 * r, codes + (size_t)r * row + h * 4, 4);
}

const Kernel facedex_avx2 = {
    .name = "avx2", .probe_limit8 = 63, .wraps = 1, .scan4 = scan4, .scan8 = scan8,
    .refine = refine, .dot = dot, .dots = dots, .dot_gather = dot_gather, .products = products, .largest = largest, .reach = reach,
    .dot32 = dot32, .widen = widen, .square = square,
    .unpack4 = unpack4, .unpack8 = unpack8,
};
#endif
