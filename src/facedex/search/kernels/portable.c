/* The kernel in plain C: the one to read first, and the one every machine can run. */
#include "kernels.h"

#include <string.h>

static void scan4(const uint8_t *packed, size_t n_blocks, size_t n_groups, const int8_t *probe, const int32_t *init,
                  int32_t total, const int32_t *thr, uint32_t *masks)
{
    (void)init;
    for (size_t b = 0; b < n_blocks; b++, packed += n_groups * 64) {
        int32_t sum[BLOCK];
        for (int r = 0; r < BLOCK; r++)
            sum[r] = total;
        for (size_t j = 0; j < n_groups / 2; j++) {
            const uint8_t *v = packed + j * 128;
            const int8_t *p = probe + j * 8;
            for (int r = 0; r < BLOCK; r++)
                for (int i = 0; i < 4; i++)
                    sum[r] += (v[4 * r + i] & 15) * p[i] + (v[4 * r + i] >> 4) * p[4 + i];
        }
        uint32_t mask = 0;
        for (int r = 0; r < BLOCK; r++)
            mask |= (uint32_t)(sum[r] > thr[b]) << r;
        masks[b] = mask;
    }
}

static void scan8(const uint8_t *block, size_t n_groups, size_t n_probes, const int8_t *probes, size_t stride,
                  const int32_t *init, size_t init_stride, const int32_t *total, const int32_t *thr, uint32_t *masks,
                  int32_t *scores)
{
    (void)init, (void)init_stride;
    for (size_t q = 0; q < n_probes; q++, probes += stride) {
        int32_t sum[BLOCK];
        for (int r = 0; r < BLOCK; r++)
            sum[r] = total[q];
        for (size_t g = 0; g < n_groups; g++) {
            const uint8_t *v = block + g * 128;
            const int8_t *p = probes + g * 4;
            for (int r = 0; r < BLOCK; r++)
                sum[r] += v[4 * r] * p[0] + v[4 * r + 1] * p[1] + v[4 * r + 2] * p[2] + v[4 * r + 3] * p[3];
        }
        if (scores) {
            memcpy(scores + q * BLOCK, sum, sizeof sum);
            continue;
        }
        uint32_t mask = 0;
        for (int r = 0; r < BLOCK; r++)
            mask |= (uint32_t)(sum[r] > thr[q]) << r;
        masks[q] = mask;
    }
}

int32_t facedex_refine_portable(const uint8_t *code, const int16_t *probe, size_t n)
{
    int32_t sum = 0;
    for (size_t d = 0; d < n; d++)
        sum += (int32_t)code[d] * probe[d];
    return sum;
}

/* The products of two float32 are exact in float64, so only the order of the additions matters, and it is fixed:
 * lane d mod 8 sums its own, then the lanes are folded in halves. */
double facedex_dot_portable(const float *row, const double *probe, size_t n)
{
    double lane[8] = {0};
    size_t d = 0;
    for (; d + 8 <= n; d += 8)
        for (int i = 0; i < 8; i++)
            lane[i] += (double)row[d + i] * probe[d + i];
    for (int i = 0; d < n; d++, i++)
        lane[i] += (double)row[d] * probe[d];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void facedex_dot_gather_portable(const float *const *rows, size_t n_rows, size_t n, const double *probe, double *out)
{
    for (size_t r = 0; r < n_rows; r++)
        out[r] = facedex_dot_portable(rows[r], probe, n);
}

void facedex_dots_portable(const float *rows, size_t n_rows, size_t n, const double *probes, size_t stride,
                           size_t n_probes, double *out)
{
    for (size_t q = 0; q < n_probes; q++)
        for (size_t r = 0; r < n_rows; r++)
            out[q * n_rows + r] = facedex_dot_portable(rows + r * n, probes + q * stride, n);
}

double facedex_dot32_portable(const float *row, const float *probe, size_t n)
{
    double lane[8] = {0};
    size_t d = 0;
    for (; d + 8 <= n; d += 8)
        for (int i = 0; i < 8; i++)
            lane[i] += (double)row[d + i] * probe[d + i];
    for (int i = 0; d < n; d++, i++)
        lane[i] += (double)row[d] * probe[d];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

double facedex_widen_portable(const float *x, size_t n, double *out)
{
    double lane[8] = {0};
    for (size_t d = 0; d < n; d++) {
        out[d] = x[d];
        lane[d % 8] += out[d] * out[d];
    }
    for (size_t d = n; d % 8; d++)
        out[d] = 0;
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

float facedex_square_portable(const float *x, size_t n)
{
    float lane[8] = {0};
    size_t d = 0;
    for (; d + 8 <= n; d += 8)
        for (int i = 0; i < 8; i++)
            lane[i] += x[d + i] * x[d + i];
    for (int i = 0; d < n; d++, i++)
        lane[i] += x[d] * x[d];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void facedex_products_portable(const float *rows, size_t n_rows, size_t n, const float *probes, size_t probe_stride,
                               size_t n_probes, float *out, size_t stride)
{
    for (size_t r = 0; r < n_rows; r++, rows += n)
        for (size_t q = 0; q < n_probes; q++) {
            const float *probe = probes + q * probe_stride;
            float lane[8] = {0};
            size_t d = 0;
            for (; d + 8 <= n; d += 8)
                for (int i = 0; i < 8; i++)
                    lane[i] += rows[d + i] * probe[d + i];
            for (int i = 0; d < n; d++, i++)
                lane[i] += rows[d] * probe[d];
            out[q * stride + r] =
                ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
        }
}

float facedex_largest_portable(const float *values, size_t n_blocks)
{
    float largest = values[0];
    for (size_t i = 1; i < n_blocks * BLOCK; i++)
        largest = values[i] > largest ? values[i] : largest;
    return largest;
}

size_t facedex_reach_portable(const float *values, size_t n_blocks, float cut, uint32_t *masks)
{
    size_t count = 0;
    for (size_t b = 0; b < n_blocks; b++, values += BLOCK) {
        uint32_t mask = 0;
        for (int r = 0; r < BLOCK; r++) {
            mask |= (uint32_t)(values[r] >= cut) << r;
            count += values[r] >= cut;
        }
        masks[b] = mask;
    }
    return count;
}

void facedex_unpack4_portable(const uint8_t *packed, size_t n_groups, uint8_t *block)
{
    for (size_t j = 0; j < n_groups / 2; j++, packed += 128, block += 256)
        for (int i = 0; i < 128; i++) {
            block[i] = packed[i] & 15;
            block[128 + i] = packed[i] >> 4;
        }
}

void facedex_unpack8_portable(const uint8_t *codes, size_t n_groups, uint8_t *block)
{
    for (int r = 0; r < BLOCK; r++)
        for (size_t g = 0; g < n_groups; g++)
            memcpy(block + g * 128 + 4 * r, codes + (size_t)r * n_groups * 4 + g * 4, 4);
}

const Kernel facedex_portable = {
    .name = "portable", .probe_limit8 = 127, .wraps = 0, .scan4 = scan4, .scan8 = scan8,
    .refine = facedex_refine_portable, .dot = facedex_dot_portable, .dots = facedex_dots_portable,
    .dot_gather = facedex_dot_gather_portable,
    .products = facedex_products_portable, .reach = facedex_reach_portable,
    .largest = facedex_largest_portable,
    .dot32 = facedex_dot32_portable, .widen = facedex_widen_portable,
    .square = facedex_square_portable,
    .unpack4 = facedex_unpack4_portable, .unpack8 = facedex_unpack8_portable,
};
