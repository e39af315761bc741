/* NEON without the dot-product extension, so that every 64-bit Arm runs it: vmlal_s8 sums 8 products s8 x s8 in int16.
 *
 * 4-bit codes are moved to -8..7, so 32 products of at most 8*127 stay below 2^15.  8-bit codes are moved to
 * -128..127 and widened every product pair (vpadal), because two products of 128*127 are all that fits.
 */
#include "kernels.h"

#ifdef FACEDEX_HAVE_NEON
#ifdef FACEDEX_EMULATE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#else
#include <arm_neon.h>
#endif
#include <string.h>

static inline int8x16_t broadcast(const int8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

static inline int32_t sum_of(const int8_t *p, size_t n)
{
    int32_t sum = 0;
    for (size_t d = 0; d < n; d++)
        sum += p[d];
    return sum;
}

/* int32 sums of 4 rows from the int16 sums of rows 0, 1 and rows 2, 3 */
static inline int32x4_t widen(int32x4_t sum, int16x8_t lo, int16x8_t hi)
{
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
}

static inline uint32_t above(int32x4_t sum, int32_t thr)
{
    static const uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgtq_s32(sum, vdupq_n_s32(thr)), vld1q_u32(bits)));
}

static void scan4(const uint8_t *packed, size_t n_blocks, size_t n_groups, const int8_t *probe, const int32_t *init,
                  int32_t total, const int32_t *thr, uint32_t *masks)
{
    (void)init;
    const int32_t start = total + 8 * sum_of(probe, n_groups * 4);
    const uint8x16_t low = vdupq_n_u8(15);
    const int8x16_t eight = vdupq_n_s8(8);
    for (size_t b = 0; b < n_blocks; b++, packed += n_groups * 64) {
        uint32_t mask = 0;
        for (int v = 0; v < 8; v++) {
            int32x4_t sum = vdupq_n_s32(start);
            for (size_t j = 0; j < n_groups / 2;) {
                const size_t end = j + 16 < n_groups / 2 ? j + 16 : n_groups / 2; /* 32 products a lane */
                int16x8_t lo = vdupq_n_s16(0), hi = lo;
                for (; j < end; j++) {
                    const uint8x16_t x = vld1q_u8(packed + j * 128 + 16 * v);
                    const int8x16_t a = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(x, low)), eight);
                    const int8x16_t c = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(x, 4)), eight);
                    const int8x16_t p0 = broadcast(probe + 8 * j), p1 = broadcast(probe + 8 * j + 4);
                    lo = vmlal_s8(lo, vget_low_s8(a), vget_low_s8(p0));
                    hi = vmlal_s8(hi, vget_high_s8(a), vget_high_s8(p0));
                    lo = vmlal_s8(lo, vget_low_s8(c), vget_low_s8(p1));
                    hi = vmlal_s8(hi, vget_high_s8(c), vget_high_s8(p1));
                }
                sum = widen(sum, lo, hi);
            }
            mask |= above(sum, thr[b]) << (4 * v);
        }
        masks[b] = mask;
    }
}

static void scan8(const uint8_t *block, size_t n_groups, size_t n_probes, const int8_t *probes, size_t stride,
                  const int32_t *init, size_t init_stride, const int32_t *total, const int32_t *thr, uint32_t *masks,
                  int32_t *scores)
{
    (void)init, (void)init_stride;
    const uint8x16_t flip = vdupq_n_u8(128);
    for (size_t q = 0; q < n_probes; q++, probes += stride) {
        const int32_t start = total[q] + 128 * sum_of(probes, n_groups * 4);
        uint32_t mask = 0;
        for (int v = 0; v < 8; v++) {
            int32x4_t lo = vdupq_n_s32(0), hi = lo;
            for (size_t g = 0; g < n_groups; g++) {
                const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(block + g * 128 + 16 * v), flip));
                const int8x16_t p = broadcast(probes + 4 * g);
                lo = vpadalq_s16(lo, vmull_s8(vget_low_s8(x), vget_low_s8(p)));
                hi = vpadalq_s16(hi, vmull_s8(vget_high_s8(x), vget_high_s8(p)));
            }
            const int32x4_t sum = vaddq_s32(vpaddq_s32(lo, hi), vdupq_n_s32(start));
            if (scores)
                vst1q_s32(scores + q * BLOCK + 4 * v, sum);
            else
                mask |= above(sum, thr[q]) << (4 * v);
        }
        if (!scores)
            masks[q] = mask;
    }
}

const Kernel facedex_neon = {
    .name = "neon", .probe_limit8 = 127, .wraps = 0, .scan4 = scan4, .scan8 = scan8,
    .refine = facedex_refine_portable, .dot = facedex_dot_portable, .dots = facedex_dots_portable,
    .dot_gather = facedex_dot_gather_portable,
    .products = facedex_products_portable, .reach = facedex_reach_portable,
    .largest = facedex_largest_portable,
    .dot32 = facedex_dot32_portable, .widen = facedex_widen_portable,
    .square = facedex_square_portable,
    .unpack4 = facedex_unpack4_portable, .unpack8 = facedex_unpack8_portable,
};
#endif
