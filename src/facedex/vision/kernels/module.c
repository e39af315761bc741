/* The Python border: every buffer is contiguous, exactly large enough, and held while C may touch it.
 *
 * Limited API of Python 3.11: one binary serves every later version.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "pixels.h"

#define MOST_SIDE 1000000

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
            facedex_warp(from.buf, height, width, place, place + size, place + 2 * size, place + 3 * size, size, to.buf);
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
        ok = facedex_shrink(from.buf, height, width, factor, high, wide, to.buf);
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
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_doc = "Compiled pixel work; see kernels/pixels.h.", .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
