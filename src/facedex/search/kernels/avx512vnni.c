/* vpdpbusd multiplies 64 pairs u8 x s8 and adds them to 16 int32 sums, without overflow: one instruction where AVX2
 * needs four.  16 rows a register, 12 probes x 2 registers a tile: 24 sums, 2 loads and 12 broadcasts for 24 products.
 *
 * With FACEDEX_EMULATE the same source is compiled against SIMDe, so that its answers are tested on any machine.
 */
#include "kernels.h"

#ifdef FACEDEX_HAVE_AVX512VNNI
#include <string.h>
#ifdef FACEDEX_EMULATE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#define TARGET
#else
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")))
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET

#define UNROLL _Pragma("GCC unroll 16")

INLINE __m512i load(const void *p) { return _mm512_loadu_si512(p); }

INLINE __m512i broadcast(const int8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* sum += 4 products per lane.  In assembler, because GCC 12 copies the sum before and after the intrinsic: 63 instructions
 * in the loop of scan8 where 37 do. */
INLINE __m512i dot4(__m512i sum, __m512i codes, __m512i probe)
{
#if defined(FACEDEX_EMULATE)
    return _mm512_dpbusd_epi32(sum, codes, probe);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(probe));
    return sum;
#endif
}

INLINE uint32_t above(__m512i a, __m512i b, int32_t thr)
{
    const __m512i t = _mm512_set1_epi32(thr);
    return (uint32_t)_mm512_cmpgt_epi32_mask(a, t) | (uint32_t)_mm512_cmpgt_epi32_mask(b, t) << 16;
}

/* High nibbles stay where they are, as 16 times their value, so only their sum is shifted: a logical shift, for which
 * it starts at 2^31, and the other sum at -2^27. */
TARGET static void scan4(const uint8_t *packed, size_t n_blocks, size_t n_groups, const int8_t *probe,
                         const int32_t *init, int32_t total, const int32_t *thr, uint32_t *masks)
{
    (void)init;
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
    const __m512i start = _mm512_set1_epi32(total - (1 << 27)), bias = _mm512_set1_epi32(INT32_MIN);
    for (size_t b = 0; b < n_blocks; b++) {
        __m512i a0 = start, a1 = start, b0 = bias, b1 = bias;
        const int8_t *p = probe;
        for (size_t j = 0; j < n_groups / 2; j++, packed += 128, p += 8) {
            const __m512i p0 = broadcast(p), p1 = broadcast(p + 4);
            const __m512i x = load(packed), y = load(packed + 64);
#ifndef FACEDEX_EMULATE
            _mm_prefetch((const char *)packed + 4096, _MM_HINT_T0);
            _mm_prefetch((const char *)packed + 4160, _MM_HINT_T0);
#endif
            a0 = dot4(a0, _mm512_and_si512(x, low), p0);
            a1 = dot4(a1, _mm512_and_si512(y, low), p0);
            b0 = dot4(b0, _mm512_and_si512(x, high), p1);
            b1 = dot4(b1, _mm512_and_si512(y, high), p1);
        }
        masks[b] = above(_mm512_add_epi32(a0, _mm512_srli_epi32(b0, 4)), _mm512_add_epi32(a1, _mm512_srli_epi32(b1, 4)),
                         thr[b]);
    }
}

/* Probes are addressed four from one base: there are few address registers. Nearly always none of the rows passes, so
 * the two registers of a probe are compared as one. */
#define SCAN8_TILE(P)                                                                                                  \
    TARGET static void scan8_tile##P(const uint8_t *block, size_t n_groups, const int8_t *probes, size_t stride,       \
                                     const int32_t *total, const int32_t *thr, uint32_t *masks, int32_t *scores)       \
    {                                                                                                                  \
        __m512i a[P], b[P];                                                                                            \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            a[q] = b[q] = _mm512_set1_epi32(total[q]);                                                                 \
        const int8_t *base[(P + 3) / 4];                                                                               \
        UNROLL for (int i = 0; i < (P + 3) / 4; i++)                                                                   \
            base[i] = probes + 4 * (size_t)i * stride;                                                                 \
        for (size_t g = 0; g < n_groups; g++, block += 128) {                                                          \
            const __m512i x = load(block), y = load(block + 64);                                                       \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
            {                                                                                                          \
                const __m512i p = broadcast(base[q / 4] + (size_t)(q % 4) * stride + 4 * g);                           \
                a[q] = dot4(a[q], x, p);                                                                               \
                b[q] = dot4(b[q], y, p);                                                                               \
            }                                                                                                          \
        }                                                                                                              \
        if (scores) {                                                                                                  \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
            {                                                                                                          \
                _mm512_storeu_si512(scores + q * BLOCK, a[q]);                                                         \
                _mm512_storeu_si512(scores + q * BLOCK + 16, b[q]);                                                    \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        uint32_t any = 0;                                                                                              \
        UNROLL for (int q = 0; q < P; q++)                                                                             \
            any |= _mm512_cmpgt_epi32_mask(_mm512_max_epi32(a[q], b[q]), _mm512_set1_epi32(thr[q]));                   \
        memset(masks, 0, P * sizeof *masks);                                                                           \
        if (__builtin_expect(any, 0))                                                                                  \
            UNROLL for (int q = 0; q < P; q++)                                                                         \
                masks[q] = above(a[q], b[q], thr[q]);                                                                  \
    }
SCAN8_TILE(1)
SCAN8_TILE(4)
SCAN8_TILE(12)

TARGET static void scan8(const uint8_t *block, size_t n_groups, size_t n_probes, const int8_t *probes, size_t stride,
                         const int32_t *init, size_t init_stride, const int32_t *total, const int32_t *thr,
                         uint32_t *masks, int32_t *scores)
{
    (void)init, (void)init_stride;
    size_t q = 0;
#define TILES(P)                                                                                                       \
    for (; q + P <= n_probes; q += P)                                                                                  \
        scan8_tile##P(block, n_groups, probes + q * stride, stride, total + q, thr + q, masks + q,                     \
                      scores ? scores + q * BLOCK : NULL);
    TILES(12)
    TILES(4)
    TILES(1)
#undef TILES
}

TARGET static void unpack4(const uint8_t *packed, size_t n_groups, uint8_t *block)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t j = 0; j < n_groups / 2; j++, packed += 128, block += 256)
        for (int v = 0; v < 2; v++) {
            const __m512i x = load(packed + 64 * v);
            _mm512_storeu_si512(block + 64 * v, _mm512_and_si512(x, low));
            _mm512_storeu_si512(block + 128 + 64 * v, _mm512_and_si512(_mm512_srli_epi16(x, 4), low));
        }
}

/* Every CPU with VNNI-512 runs AVX2, and these wait for memory rather than for wider registers. */
static void unpack8(const uint8_t *codes, size_t n_groups, uint8_t *block)
{
    facedex_avx2.unpack8(codes, n_groups, block);
}

static int32_t refine(const uint8_t *code, const int16_t *probe, size_t n)
{
    return facedex_avx2.refine(code, probe, n);
}

static double dot(const float *row, const double *probe, size_t n) { return facedex_avx2.dot(row, probe, n); }

static void dot_gather(const float *const *rows, size_t n_rows, size_t n, const double *probe, double *out)
{
    facedex_avx2.dot_gather(rows, n_rows, n, probe, out);
}

static void dots(const float *rows, size_t n_rows, size_t n, const double *probes, size_t stride, size_t n_probes,
                 double *out)
{
    facedex_avx2.dots(rows, n_rows, n, probes, stride, n_probes, out);
}

#define LANES 16
#define MOST 12
#define VEC __m512
#define VZERO _mm512_setzero_ps()
#define VLOAD _mm512_loadu_ps
#define VSTORE _mm512_storeu_ps
#define VSPLAT _mm512_set1_ps
#define VFMA _mm512_fmadd_ps
#include "panels.h"

static void products(const float *rows, size_t n_rows, size_t n, const float *probes, size_t probe_stride,
                     size_t n_probes, float *out, size_t stride)
{
    (n_probes >= 16 ? panel_products : facedex_avx2.products)(rows, n_rows, n, probes, probe_stride, n_probes, out,
                                                              stride);
}

static double dot32(const float *row, const float *probe, size_t n) { return facedex_avx2.dot32(row, probe, n); }

static double widen(const float *x, size_t n, double *out) { return facedex_avx2.widen(x, n, out); }

static float square(const float *x, size_t n) { return facedex_avx2.square(x, n); }

static float largest(const float *values, size_t n_blocks) { return facedex_avx2.largest(values, n_blocks); }

static size_t reach(const float *values, size_t n_blocks, float cut, uint32_t *masks)
{
    return facedex_avx2.reach(values, n_blocks, cut, masks);
}

const Kernel facedex_avx512vnni = {
    .name = "avx512vnni", .probe_limit8 = 127, .wraps = 0, .scan4 = scan4, .scan8 = scan8,
    .refine = refine, .dot = dot, .dots = dots, .dot_gather = dot_gather, .products = products, .largest = largest, .reach = reach,
    .dot32 = dot32, .widen = widen, .square = square,
    .unpack4 = unpack4, .unpack8 = unpack8,
};
#endif
