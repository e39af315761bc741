/* The certified-exact scan: what every translation unit shares.
 *
 * Two compressed copies of a gallery are kept, both of the *rotated, centred* rows x' = T x - mean:
 *
 *   packed4   4-bit codes, x'[d] ~ step4 * (c - 7.5), in blocks of 32 rows.  For one probe memory is the limit,
 *             so this is the smaller copy.  A block is [Dp/8][32][4] bytes; byte (j, r, i) holds dimension 8j+i of
 *             row r in its low and 8j+4+i in its high nibble.  32 or 64 consecutive bytes feed 8 or 16 rows.
 *   codes8    8-bit codes, x'[d] ~ step8 * (c - 128), one row after the other.  Refines the survivors of the
 *             4-bit scan, and is scanned itself in batches, where arithmetic is the limit.
 *
 * Every row carries the length of what its code leaves out: e8[row], and per block the largest e4[block].  By
 * Cauchy-Schwarz |<x', y> - <code, y>| <= e * |y|, which is what certifies an answer.  A scan only ever *excludes*
 * rows whose upper bound lies below the k-th best lower bound; the rest is scored in float64.
 *
 * Integer scores are the same on every instruction set, bit for bit, given the same probe codes.
 */
#ifndef FACEDEX_KERNELS_H
#define FACEDEX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    BLOCK = 32,          /* rows of a block; one bit each in a mask */
    GATHER = 4,          /* rows scored together */
    CHUNK_GROUPS = 32,   /* groups of 4 dimensions summed in int16 before widening (AVX2) */
    MAX_DIMENSION = 4096 /* keeps every int32 sum, and the rounding slack of certify.h, within its proof */
};

/* Scores of 32 rows with one probe against a threshold; bit r of a mask says row r is above it.
 *
 * scan4   n_blocks blocks of packed4, one probe; thr and masks have one entry per block.
 * scan8   one block in the layout [Dp/4][32][4] of uint8, n_probes probes at a distance of `stride` bytes; thr and
 *         masks have one entry per probe.  With `scores`, the 32 scores of each probe are written there instead.
 * init    per chunk of CHUNK_GROUPS groups: minus the offset of the codes, as two int16 (dimensions 0, 1 and 2, 3 of
 *         each group) packed in an int32; kernels that sum in int32 use `total`, the sum of all of them.
 * refine  sum of code[d] * probe[d], exact in int32 by the choice of the probe's scale.
 * dot     the similarity by definition: eight interleaved float64 sums; see reference.py.
 * dot_gather   the same for up to GATHER rows that lie anywhere; the probe has zeros up to a multiple of 8.
 * dots    the same for n_rows rows and n_probes probes (wide, at a distance of `stride` doubles, zeros up to a multiple
 *         of 8): out[q * n_rows + r].
 * dot32   the same from a float32 probe: for one or two rows, which a conversion of the probe would not pay for.
 * widen   x in float64 with zeros up to a multiple of 8; returns |x|^2, summed in float64 in any order.
 * square  |x|^2 in float32, in any order of summation.
 * products   float32 similarities, in any order of summation, with probes at a distance of `probe_stride`, at
 *         out[q * stride + r]; up to the next multiple of 32 rows, anything may be written behind those of a probe.
 * largest   of n_blocks blocks of 32 values.
 * reach   per block of 32 values the mask of those >= cut; returns how many.
 * unpack4, unpack8   a block of packed4, or 32 rows of codes8, into the layout of scan8.
 */
typedef struct {
    const char *name;
    int probe_limit8; /* largest |code| of a probe in scan8: 63 where pairs are summed in saturating int16 */
    int wraps;        /* sums in int16 modulo 2^16: the probe's scale must keep the true sum in range */
    void (*scan4)(const uint8_t *packed, size_t n_blocks, size_t n_groups, const int8_t *probe, const int32_t *init,
                  int32_t total, const int32_t *thr, uint32_t *masks);
    void (*scan8)(const uint8_t *block, size_t n_groups, size_t n_probes, const int8_t *probes, size_t stride,
                  const int32_t *init, size_t init_stride, const int32_t *total, const int32_t *thr, uint32_t *masks,
                  int32_t *scores);
    int32_t (*refine)(const uint8_t *code, const int16_t *probe, size_t n);
    double (*dot)(const float *row, const double *probe, size_t n);
    void (*dot_gather)(const float *const *rows, size_t n_rows, size_t n, const double *probe, double *out);
    void (*dots)(const float *rows, size_t n_rows, size_t n, const double *probes, size_t stride, size_t n_probes,
                 double *out);
    void (*products)(const float *rows, size_t n_rows, size_t n, const float *probes, size_t probe_stride,
                     size_t n_probes, float *out, size_t stride);
    double (*dot32)(const float *row, const float *probe, size_t n);
    double (*widen)(const float *x, size_t n, double *out);
    float (*square)(const float *x, size_t n);
    float (*largest)(const float *values, size_t n_blocks);
    size_t (*reach)(const float *values, size_t n_blocks, float cut, uint32_t *masks);
    void (*unpack4)(const uint8_t *packed, size_t n_groups, uint8_t *block);
    void (*unpack8)(const uint8_t *codes, size_t n_groups, uint8_t *block);
} Kernel;

extern const Kernel facedex_portable;
#if defined(__x86_64__) || defined(_M_X64)
#define FACEDEX_X86 1
#endif
#if defined(FACEDEX_X86) && (defined(__GNUC__) || defined(__clang__))
#define FACEDEX_HAVE_AVX2 1
#define FACEDEX_HAVE_AVX512VNNI 1
extern const Kernel facedex_avx2;
extern const Kernel facedex_avx512vnni;
/* panel[d * width + r] = rows[r * n + d] for d < depth; width is a multiple of 8, rows beyond the last are the last. */
void facedex_avx2_panel(const float *rows, size_t n_rows, size_t n, size_t depth, size_t width, float *panel);
#endif
#if defined(__aarch64__) || defined(FACEDEX_EMULATE)
#define FACEDEX_HAVE_NEON 1
extern const Kernel facedex_neon;
#endif

/* portable helpers that the other kernels fall back on */
double facedex_dot_portable(const float *row, const double *probe, size_t n);
void facedex_dot_gather_portable(const float *const *rows, size_t n_rows, size_t n, const double *probe, double *out);
void facedex_dots_portable(const float *rows, size_t n_rows, size_t n, const double *probes, size_t stride,
                           size_t n_probes, double *out);
void facedex_products_portable(const float *rows, size_t n_rows, size_t n, const float *probes, size_t probe_stride,
                               size_t n_probes, float *out, size_t stride);
double facedex_dot32_portable(const float *row, const float *probe, size_t n);
double facedex_widen_portable(const float *x, size_t n, double *out);
float facedex_square_portable(const float *x, size_t n);
float facedex_largest_portable(const float *values, size_t n_blocks);
size_t facedex_reach_portable(const float *values, size_t n_blocks, float cut, uint32_t *masks);
int32_t facedex_refine_portable(const uint8_t *code, const int16_t *probe, size_t n);
void facedex_unpack4_portable(const uint8_t *packed, size_t n_groups, uint8_t *block);
void facedex_unpack8_portable(const uint8_t *codes, size_t n_groups, uint8_t *block);

/* The kernel of that name, the best one this machine runs for NULL, or NULL when it cannot run here. */
const Kernel *facedex_kernel(const char *name);
/* All compiled kernels, NULL-terminated, best first. */
const Kernel *const *facedex_kernels(void);

#endif
