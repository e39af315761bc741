/* The warp of alignment, and the shrinking before detection. No Python here: module.c is the border.
 *
 * alignment.py and scaling.py hold the same functions in NumPy and Pillow; the tests hold both to each other.
 */
#include "pixels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The same C, compiled once more for wider registers where the compiler can; bits are the same, for AVX2 alone brings
 * no fused multiply-add. */
#if defined(__GNUC__) && defined(__x86_64__)
#define TWICE 1
#define BODY static inline __attribute__((always_inline))
#define WIDE static __attribute__((target("avx2")))
#else
#define TWICE 0
#define BODY static
#endif

/* ---- Warp -------------------------------------------------------------------------------------------------------- */

/* Bilinear sampling of an RGB image at the pixels of a square crop; outside is black, and blended with at the edge.
 *
 * A crop's column and row each add their own part to the place in the image: x = xc[column] + xr[row], so for y.
 */
void facedex_warp(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, const double *xc, const double *xr,
                 const double *yc, const double *yr, ptrdiff_t size, uint8_t *crop)
{
    static const uint8_t black[6] = {0};
    const ptrdiff_t stride = width * 3;
    for (ptrdiff_t row = 0; row < size; row++) {
        for (ptrdiff_t column = 0; column < size; column++, crop += 3) {
            const double x = xc[column] + xr[row], y = yc[column] + yr[row];
            if (!(x > -1 && y > -1 && x < (double)width && y < (double)height)) { /* also when not a number */
                memset(crop, 0, 3);
                continue;
            }
            const ptrdiff_t left = (ptrdiff_t)(x + 1) - 1, top = (ptrdiff_t)(y + 1) - 1;
            const float wx = (float)(x - (double)left), wy = (float)(y - (double)top);
            const uint8_t *upper = image + top * stride + left * 3, *lower = upper + stride;
            uint8_t rows[2][6];
            if (left < 0 || top < 0 || left + 1 >= width || top + 1 >= height) {
                for (int below = 0; below < 2; below++)
                    for (int right = 0; right < 2; right++) {
                        const int inside = top + below >= 0 && top + below < height && left + right >= 0 &&
                                           left + right < width;
                        memcpy(rows[below] + 3 * right, inside ? (below ? lower : upper) + 3 * right : black, 3);
                    }
                upper = rows[0];
                lower = rows[1];
            }
            for (int c = 0; c < 3; c++) {
                const float above = upper[c] + wx * (float)(upper[c + 3] - upper[c]);
                const float under = lower[c] + wx * (float)(lower[c + 3] - lower[c]);
                crop[c] = (uint8_t)(above + wy * (under - above) + 0.5f);
            }
        }
    }
}

/* ---- Shrink ------------------------------------------------------------------------------------------------------ */

/* Means of factor × factor pixels; at the right and lower edge, of those there are. */
BODY int reduce(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t factor, uint8_t *out)
{
    const ptrdiff_t wide = (width + factor - 1) / factor, high = (height + factor - 1) / factor, line = width * 3;
    uint32_t *sums = malloc((size_t)line * sizeof *sums);
    if (!sums)
        return 0;
    for (ptrdiff_t y = 0; y < high; y++) {
        const ptrdiff_t top = y * factor, rows = height - top < factor ? height - top : factor;
        memset(sums, 0, (size_t)line * sizeof *sums);
        for (ptrdiff_t row = 0; row < rows; row++) {
            const uint8_t *pixels = image + (top + row) * line;
            for (ptrdiff_t i = 0; i < line; i++)
                sums[i] += pixels[i];
        }
        for (ptrdiff_t x = 0; x < wide; x++, out += 3) {
            const ptrdiff_t left = x * factor, columns = width - left < factor ? width - left : factor;
            uint32_t total[3] = {0};
            for (ptrdiff_t i = 0; i < columns; i++)
                for (int c = 0; c < 3; c++)
                    total[c] += sums[(left + i) * 3 + c];
            const uint32_t n = (uint32_t)(rows * columns);
            for (int c = 0; c < 3; c++)
                out[c] = (uint8_t)((total[c] + n / 2) / n);
        }
    }
    free(sums);
    return 1;
}

/* One axis of a resampling: each new pixel is a weighted mean of `taps` old ones from `first` on. */
typedef struct {
    ptrdiff_t taps, *first;
    float *weights; /* [new pixel][taps] */
} Axis;

/* Weights fall linearly from a new pixel's centre to those of its neighbours. `length` old pixels become `count`; it
 * may end within the last of the `available` ones. */
static int make_axis(Axis *axis, double length, ptrdiff_t available, ptrdiff_t count)
{
    const double scale = length / (double)count, reach = scale < 1 ? 1 : scale;
    axis->taps = (ptrdiff_t)ceil(2 * reach);
    if (axis->taps > available)
        axis->taps = available;
    axis->first = malloc((size_t)count * sizeof *axis->first);
    axis->weights = malloc((size_t)(count * axis->taps) * sizeof *axis->weights);
    if (!axis->first || !axis->weights)
        return 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const double centre = ((double)i + 0.5) * scale;
        double from = floor(centre - reach + 0.5), total = 0;
        if (from > (double)(available - axis->taps))
            from = (double)(available - axis->taps);
        axis->first[i] = from < 0 ? 0 : (ptrdiff_t)from;
        float *weights = axis->weights + i * axis->taps;
        for (ptrdiff_t k = 0; k < axis->taps; k++) {
            const double w = 1 - fabs((double)(axis->first[i] + k) + 0.5 - centre) / reach;
            weights[k] = w > 0 ? (float)w : 0;
            total += weights[k];
        }
        for (ptrdiff_t k = 0; k < axis->taps; k++)
            weights[k] = (float)(weights[k] / total);
    }
    return 1;
}

static void free_axis(Axis *axis)
{
    free(axis->first);
    free(axis->weights);
}

BODY int resample(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, double true_height, double true_width,
                    ptrdiff_t high, ptrdiff_t wide, uint8_t *out)
{
    const ptrdiff_t line = width * 3;
    Axis down = {0}, across = {0};
    float *sums = malloc(((size_t)line + 1) * sizeof *sums); /* one more: a pixel is read as four values */
    const int ok = sums && make_axis(&down, true_height, height, high) && make_axis(&across, true_width, width, wide);
    if (ok)
        sums[line] = 0;
    for (ptrdiff_t y = 0; ok && y < high; y++) {
        const float *weights = down.weights + y * down.taps;
        memset(sums, 0, (size_t)line * sizeof *sums);
        for (ptrdiff_t k = 0; k < down.taps; k++) {
            const float weight = weights[k];
            if (weight == 0)
                continue;
            const uint8_t *pixels = image + (down.first[y] + k) * line;
            for (ptrdiff_t i = 0; i < line; i++)
                sums[i] += weight * (float)pixels[i];
        }
        for (ptrdiff_t x = 0; x < wide; x++, out += 3) {
            const float *pixels = sums + across.first[x] * 3, *weight = across.weights + x * across.taps;
            float mean[4] = {0.5f, 0.5f, 0.5f, 0.5f};
            for (ptrdiff_t k = 0; k < across.taps; k++, pixels += 3)
                for (int c = 0; c < 4; c++)
                    mean[c] += weight[k] * pixels[c];
            for (int c = 0; c < 3; c++)
                out[c] = mean[c] >= 255 ? 255 : (uint8_t)mean[c];
        }
    }
    free(sums);
    free_axis(&down);
    free_axis(&across);
    return ok;
}

/* Reduce by the whole factor, then resample to high × wide. 0 when there is no memory. */
BODY int shrink(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t factor, ptrdiff_t high,
                ptrdiff_t wide, uint8_t *out)
{
    if (factor == 1)
        return resample(image, height, width, (double)height, (double)width, high, wide, out);
    const ptrdiff_t less_high = (height + factor - 1) / factor, less_wide = (width + factor - 1) / factor;
    uint8_t *reduced = malloc((size_t)(less_high * less_wide) * 3);
    const int ok = reduced && reduce(image, height, width, factor, reduced) &&
                   resample(reduced, less_high, less_wide, (double)height / (double)factor,
                            (double)width / (double)factor, high, wide, out);
    free(reduced);
    return ok;
}

#if TWICE
WIDE int shrink_wide(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t factor, ptrdiff_t high,
                     ptrdiff_t wide, uint8_t *out)
{
    return shrink(image, height, width, factor, high, wide, out);
}
#endif

int facedex_shrink(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t factor, ptrdiff_t high,
                       ptrdiff_t wide, uint8_t *out)
{
#if TWICE
    if (__builtin_cpu_supports("avx2"))
        return shrink_wide(image, height, width, factor, high, wide, out);
#endif
    return shrink(image, height, width, factor, high, wide, out);
}
