/* Pixels in, pixels out: the warp of alignment, and the shrinking before detection.
 *
 * alignment.py and scaling.py hold the same functions in NumPy and Pillow, and call these where they were compiled; the
 * tests hold both to each other. Limited API of Python 3.11: one binary serves every later version.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SIDE 1000000

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
static void warp(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, const double *xc, const double *xr,
                 const double *yc, const double *yr, Py_ssize_t size, uint8_t *crop)
{
    static const uint8_t black[6] = {0};
    const Py_ssize_t stride = width * 3;
    for (Py_ssize_t row = 0; row < size; row++) {
        for (Py_ssize_t column = 0; column < size; column++, crop += 3) {
            const double x = xc[column] + xr[row], y = yc[column] + yr[row];
            if (!(x > -1 && y > -1 && x < (double)width && y < (double)height)) { /* also when not a number */
                memset(crop, 0, 3);
                continue;
            }
            const Py_ssize_t left = (Py_ssize_t)(x + 1) - 1, top = (Py_ssize_t)(y + 1) - 1;
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
BODY int reduce(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t factor, uint8_t *out)
{
    const Py_ssize_t wide = (width + factor - 1) / factor, high = (height + factor - 1) / factor, line = width * 3;
    uint32_t *sums = malloc((size_t)line * sizeof *sums);
    if (!sums)
        return 0;
    for (Py_ssize_t y = 0; y < high; y++) {
        const Py_ssize_t top = y * factor, rows = height - top < factor ? height - top : factor;
        memset(sums, 0, (size_t)line * sizeof *sums);
        for (Py_ssize_t row = 0; row < rows; row++) {
            const uint8_t *pixels = image + (top + row) * line;
            for (Py_ssize_t i = 0; i < line; i++)
                sums[i] += pixels[i];
        }
        for (Py_ssize_t x = 0; x < wide; x++, out += 3) {
            const Py_ssize_t left = x * factor, columns = width - left < factor ? width - left : factor;
            uint32_t total[3] = {0};
            for (Py_ssize_t i = 0; i < columns; i++)
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
    Py_ssize_t taps, *first;
    float *weights; /* [new pixel][taps] */
} Axis;

/* Weights fall linearly from a new pixel's centre to those of its neighbours. `length` old pixels become `count`; it
 * may end within the last of the `available` ones. */
static int make_axis(Axis *axis, double length, Py_ssize_t available, Py_ssize_t count)
{
    const double scale = length / (double)count, reach = scale < 1 ? 1 : scale;
    axis->taps = (Py_ssize_t)ceil(2 * reach);
    if (axis->taps > available)
        axis->taps = available;
    axis->first = malloc((size_t)count * sizeof *axis->first);
    axis->weights = malloc((size_t)(count * axis->taps) * sizeof *axis->weights);
    if (!axis->first || !axis->weights)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const double centre = ((double)i + 0.5) * scale;
        double from = floor(centre - reach + 0.5), total = 0;
        if (from > (double)(available - axis->taps))
            from = (double)(available - axis->taps);
        axis->first[i] = from < 0 ? 0 : (Py_ssize_t)from;
        float *weights = axis->weights + i * axis->taps;
        for (Py_ssize_t k = 0; k < axis->taps; k++) {
            const double w = 1 - fabs((double)(axis->first[i] + k) + 0.5 - centre) / reach;
            weights[k] = w > 0 ? (float)w : 0;
            total += weights[k];
        }
        for (Py_ssize_t k = 0; k < axis->taps; k++)
            weights[k] = (float)(weights[k] / total);
    }
    return 1;
}

static void free_axis(Axis *axis)
{
    free(axis->first);
    free(axis->weights);
}

BODY int resample(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, double true_height, double true_width,
                    Py_ssize_t high, Py_ssize_t wide, uint8_t *out)
{
    const Py_ssize_t line = width * 3;
    Axis down = {0}, across = {0};
    float *sums = malloc(((size_t)line + 1) * sizeof *sums); /* one more: a pixel is read as four values */
    const int ok = sums && make_axis(&down, true_height, height, high) && make_axis(&across, true_width, width, wide);
    if (ok)
        sums[line] = 0;
    for (Py_ssize_t y = 0; ok && y < high; y++) {
        const float *weights = down.weights + y * down.taps;
        memset(sums, 0, (size_t)line * sizeof *sums);
        for (Py_ssize_t k = 0; k < down.taps; k++) {
            const float weight = weights[k];
            if (weight == 0)
                continue;
            const uint8_t *pixels = image + (down.first[y] + k) * line;
            for (Py_ssize_t i = 0; i < line; i++)
                sums[i] += weight * (float)pixels[i];
        }
        for (Py_ssize_t x = 0; x < wide; x++, out += 3) {
            const float *pixels = sums + across.first[x] * 3, *weight = across.weights + x * across.taps;
            float mean[4] = {0.5f, 0.5f, 0.5f, 0.5f};
            for (Py_ssize_t k = 0; k < across.taps; k++, pixels += 3)
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
BODY int shrink(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t factor, Py_ssize_t high,
                Py_ssize_t wide, uint8_t *out)
{
    if (factor == 1)
        return resample(image, height, width, (double)height, (double)width, high, wide, out);
    const Py_ssize_t less_high = (height + factor - 1) / factor, less_wide = (width + factor - 1) / factor;
    uint8_t *reduced = malloc((size_t)(less_high * less_wide) * 3);
    const int ok = reduced && reduce(image, height, width, factor, reduced) &&
                   resample(reduced, less_high, less_wide, (double)height / (double)factor,
                            (double)width / (double)factor, high, wide, out);
    free(reduced);
    return ok;
}

#if TWICE
WIDE int shrink_wide(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t factor, Py_ssize_t high,
                     Py_ssize_t wide, uint8_t *out)
{
    return shrink(image, height, width, factor, high, wide, out);
}
#endif

static int shrink_here(const uint8_t *image, Py_ssize_t height, Py_ssize_t width, Py_ssize_t factor, Py_ssize_t high,
                       Py_ssize_t wide, uint8_t *out)
{
#if TWICE
    if (__builtin_cpu_supports("avx2"))
        return shrink_wide(image, height, width, factor, high, wide, out);
#endif
    return shrink(image, height, width, factor, high, wide, out);
}

/* ---- The border: every buffer is contiguous, large enough and held while it is worked on ------------------------- */

static int take_buffer(PyObject *object, Py_buffer *view, char format, Py_ssize_t itemsize, Py_ssize_t items,
                       int writable, const char *name)
{
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) != 0)
        return 0;
    const char *given = view->format ? view->format : "B";
    if (given[0] != format || given[1] || view->itemsize != itemsize)
        PyErr_Format(PyExc_TypeError, "%s: items of format '%s', expected '%c'", name, given, format);
    else if (view->len / itemsize != items)
        PyErr_Format(PyExc_ValueError, "%s: holds %zd items, expected %zd", name, view->len / itemsize, items);
    else
        return 1;
    PyBuffer_Release(view);
    return 0;
}

static int check_sides(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c, Py_ssize_t d)
{
    const Py_ssize_t sides[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (sides[i] < 1 || sides[i] > MOST_SIDE) {
            PyErr_Format(PyExc_ValueError, "a side of %zd pixels; expected 1 to %d", sides[i], MOST_SIDE);
            return 0;
        }
    return 1;
}

static PyObject *py_warp(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *image, *places, *crop, *result = NULL;
    Py_ssize_t height, width, size;
    Py_buffer from, at, to;
    if (!PyArg_ParseTuple(args, "OnnOnO", &image, &height, &width, &places, &size, &crop) ||
        !check_sides(height, width, size, size) || !take_buffer(image, &from, 'B', 1, height * width * 3, 0, "image"))
        return NULL;
    if (take_buffer(places, &at, 'd', sizeof(double), 4 * size, 0, "places")) {
        if (take_buffer(crop, &to, 'B', 1, size * size * 3, 1, "crop")) {
            const double *place = at.buf;
            Py_BEGIN_ALLOW_THREADS
            warp(from.buf, height, width, place, place + size, place + 2 * size, place + 3 * size, size, to.buf);
            Py_END_ALLOW_THREADS
            result = Py_NewRef(Py_None);
            PyBuffer_Release(&to);
        }
        PyBuffer_Release(&at);
    }
    PyBuffer_Release(&from);
    return result;
}

static PyObject *py_shrink(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *image, *out, *result = NULL;
    Py_ssize_t height, width, high, wide, factor;
    Py_buffer from, to;
    if (!PyArg_ParseTuple(args, "OnnnOnn", &image, &height, &width, &factor, &out, &high, &wide) ||
        !check_sides(height, width, high, wide))
        return NULL;
    if (factor < 1 || factor > 4096) { /* sums of more pixels would not fit 32 bits */
        PyErr_Format(PyExc_ValueError, "factor is %zd; expected 1 to 4096", factor);
        return NULL;
    }
    if (!take_buffer(image, &from, 'B', 1, height * width * 3, 0, "image"))
        return NULL;
    if (take_buffer(out, &to, 'B', 1, high * wide * 3, 1, "out")) {
        int ok;
        Py_BEGIN_ALLOW_THREADS
        ok = shrink_here(from.buf, height, width, factor, high, wide, to.buf);
        Py_END_ALLOW_THREADS
        result = ok ? Py_NewRef(Py_None) : PyErr_NoMemory();
        PyBuffer_Release(&to);
    }
    PyBuffer_Release(&from);
    return result;
}

static PyMethodDef methods[] = {
    {"warp", py_warp, METH_VARARGS, "warp(image, height, width, places (x by column, x by row, y …), size, crop)"},
    {"shrink", py_shrink, METH_VARARGS, "shrink(image, height, width, factor to reduce by first, out, high, wide)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_doc = "Compiled pixel work; see kernels/kernel.c.", .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
