/* The Python border: every buffer is typed, contiguous, large enough and held while C may touch it.
 *
 * Limited API of Python 3.11: one binary serves every later version.
 */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <string.h>

#include "engine.h"

#if defined(__unix__) || defined(__APPLE__)
#define MOST_THREADS 256
#else
#define MOST_THREADS 1
#endif

/* Take a C-contiguous buffer of at least `items` items of one of the formats; 0 and an exception when it is not. */
static int take_buffer(PyObject *object, Py_buffer *view, const char *formats, size_t size, size_t items, int writable,
                       const char *name)
{
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) != 0)
        return 0;
    const char *format = view->format ? view->format : "B";
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    if ((size_t)view->itemsize != size || !*format || format[1] || !strchr(formats, *format))
        PyErr_Format(PyExc_TypeError, "%s: items of format '%s' and %zd bytes, expected one of '%s' and %zu bytes",
                     name, view->format ? view->format : "B", view->itemsize, formats, size);
    else if ((size_t)view->len / size < items)
        PyErr_Format(PyExc_ValueError, "%s: holds %zd items, needs %zu", name, view->len / view->itemsize, items);
    else if (view->len && (uintptr_t)view->buf % size)
        PyErr_Format(PyExc_ValueError, "%s: not aligned to its items", name);
    else
        return 1;
    PyBuffer_Release(view);
    return 0;
}

/* ---- Segment ----------------------------------------------------------------------------------------------------- */

enum { PACKED4, CODES8, E4, E8, MEAN, STATS, ROWS, IDS, LIVE, N_BUFFERS };

typedef struct {
    PyObject_HEAD
    size_t dimension, capacity;
    int held;
    Py_buffer buffers[N_BUFFERS];
} SegmentObject;

static const struct {
    const char *name, *formats;
    size_t size;
} FIELDS[N_BUFFERS] = {
    {"packed4", "B", 1}, {"codes8", "B", 1}, {"e4", "f", 4},  {"e8", "f", 4},   {"mean", "f", 4},
    {"stats", "d", 8},   {"rows", "f", 4},   {"ids", "lq", 8}, {"live", "IL", 4},
};

/* Items each buffer needs; 0 and an exception for a dimension or capacity that is out of range. */
static int requirements(size_t dimension, size_t capacity, size_t items[N_BUFFERS])
{
    if (dimension < 1 || dimension > MAX_DIMENSION || capacity > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "dimension %zu must be 1...%d and the capacity %zu below 2^32", dimension,
                     MAX_DIMENSION, capacity);
        return 0;
    }
    const size_t padded = facedex_padded(dimension), blocks = (capacity + BLOCK - 1) / BLOCK;
    items[PACKED4] = blocks * padded * (BLOCK / 2);
    items[CODES8] = blocks * padded * BLOCK;
    items[E4] = blocks;
    items[E8] = capacity;
    items[MEAN] = padded;
    items[STATS] = STAT_LANES + 2 * facedex_chunks(dimension);
    items[ROWS] = capacity * dimension;
    items[IDS] = capacity;
    items[LIVE] = blocks;
    return 1;
}

static int check_stats(const Py_buffer *stats, size_t n)
{
    const double *value = stats->buf;
    for (size_t i = 0; i < n; i++)
        if (!(value[i] >= 0 && value[i] < 1e18) || (i <= STAT_STEP8 && !(value[i] > 1e-12 && value[i] < 1e6))) {
            PyErr_SetString(PyExc_ValueError, "stats: not those of a quantizer");
            return 0;
        }
    return 1;
}

static void segment_dealloc(PyObject *object)
{
    SegmentObject *self = (SegmentObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (int i = 0; i < self->held; i++)
        PyBuffer_Release(&self->buffers[i]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *segment_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Segment takes positional arguments only");
        return NULL;
    }
    Py_ssize_t dimension, capacity;
    PyObject *objects[N_BUFFERS];
    if (!PyArg_ParseTuple(args, "nnOOOOOOOOO", &dimension, &capacity, &objects[0], &objects[1], &objects[2],
                          &objects[3], &objects[4], &objects[5], &objects[6], &objects[7], &objects[8]))
        return NULL;
    size_t items[N_BUFFERS];
    if (dimension < 0 || capacity < 0) {
        PyErr_SetString(PyExc_ValueError, "negative dimension or capacity");
        return NULL;
    }
    if (!requirements((size_t)dimension, (size_t)capacity, items))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    SegmentObject *self = (SegmentObject *)allocate(type, 0);
    if (!self)
        return NULL;
    self->dimension = (size_t)dimension;
    self->capacity = (size_t)capacity;
    self->held = 0;
    for (int i = 0; i < N_BUFFERS; i++, self->held++)
        if (!take_buffer(objects[i], &self->buffers[i], FIELDS[i].formats, FIELDS[i].size, items[i], 0,
                         FIELDS[i].name)) {
            Py_DECREF(self);
            return NULL;
        }
    if (!check_stats(&self->buffers[STATS], items[STATS])) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyType_Slot segment_slots[] = {
    {Py_tp_doc, "Segment(dimension, capacity, packed4, codes8, e4, e8, mean, stats, rows, ids, live)\n\n"
                "Holds the arrays of a part of an index for the kernel; see kernels.h for their layout."},
    {Py_tp_new, segment_new},
    {Py_tp_dealloc, segment_dealloc},
    {0, NULL},
};

static PyType_Spec segment_spec = {
    .name = "facedex.search._kernel.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = segment_slots,
};

static PyObject *segment_type; /* one for the life of the process */

/* ---- functions --------------------------------------------------------------------------------------------------- */

static PyObject *py_encode(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t dimension, first, n;
    PyObject *objects[7];
    if (!PyArg_ParseTuple(args, "nnnOOOOOOO", &dimension, &first, &n, &objects[0], &objects[1], &objects[2],
                          &objects[3], &objects[4], &objects[5], &objects[6]))
        return NULL;
    size_t items[N_BUFFERS];
    if (dimension < 0 || first < 0 || n < 0 || first > PY_SSIZE_T_MAX - n) {
        PyErr_SetString(PyExc_ValueError, "negative or too large sizes");
        return NULL;
    }
    if (!requirements((size_t)dimension, (size_t)(first + n), items))
        return NULL;
    static const int field[7] = {ROWS, MEAN, PACKED4, CODES8, E4, E8, STATS};
    Py_buffer views[7];
    PyObject *result = NULL;
    int held = 0;
    for (; held < 7; held++) {
        const int f = field[held];
        const size_t need = f == ROWS ? (size_t)n * (size_t)dimension : items[f];
        if (!take_buffer(objects[held], &views[held], FIELDS[f].formats, FIELDS[f].size, need, held >= 2,
                         FIELDS[f].name))
            goto done;
    }
    if (!check_stats(&views[6], items[STATS]))
        goto done;
    {
        size_t bad = 0;
        Status status;
        Py_BEGIN_ALLOW_THREADS
        status = facedex_encode(views[0].buf, (size_t)n, (size_t)dimension, (size_t)first, views[1].buf, views[2].buf,
                                views[3].buf, views[4].buf, views[5].buf, views[6].buf, &bad);
        Py_END_ALLOW_THREADS
        if (status == NO_MEMORY)
            PyErr_NoMemory();
        else
            result = PyLong_FromSsize_t(status == BAD_VECTOR ? (Py_ssize_t)bad : -1);
    }
done:
    while (held)
        PyBuffer_Release(&views[--held]);
    return result;
}

static PyObject *py_rotate(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *in, *out;
    Py_ssize_t dimension, n;
    if (!PyArg_ParseTuple(args, "nnOO", &dimension, &n, &in, &out))
        return NULL;
    if (dimension < 1 || dimension > MAX_DIMENSION || n < 0 || n > PY_SSIZE_T_MAX / MAX_DIMENSION) {
        PyErr_SetString(PyExc_ValueError, "dimension or number of rows out of range");
        return NULL;
    }
    const size_t D = (size_t)dimension, padded = facedex_padded(D);
    Py_buffer from, to;
    if (!take_buffer(in, &from, "f", 4, (size_t)n * D, 0, "rows"))
        return NULL;
    if (!take_buffer(out, &to, "f", 4, (size_t)n * padded, 1, "out")) {
        PyBuffer_Release(&from);
        return NULL;
    }
    float *signs = PyMem_Malloc(2 * D * sizeof *signs);
    if (signs) {
        facedex_signs(D, signs);
        for (size_t i = 0; i < (size_t)n; i++)
            facedex_rotate((const float *)from.buf + i * D, D, signs, (float *)to.buf + i * padded);
        PyMem_Free(signs);
    }
    PyBuffer_Release(&from);
    PyBuffer_Release(&to);
    if (!signs)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Fill in one segment of a search; 1 when it took a filter buffer, 0 when not, -1 with an exception. */
static int fill_segment(Segment *out, PyObject *object, PyObject *count, PyObject *filter, size_t dimension,
                        Py_buffer *view)
{
    if (!PyObject_TypeCheck(object, (PyTypeObject *)segment_type)) {
        PyErr_SetString(PyExc_TypeError, "segments: every item must be a Segment");
        return -1;
    }
    const SegmentObject *s = (const SegmentObject *)object;
    const size_t n = PyLong_AsSize_t(count);
    if (PyErr_Occurred())
        return -1;
    if (s->dimension != dimension || n > s->capacity) {
        PyErr_Format(PyExc_ValueError, "segment of dimension %zu and capacity %zu asked for %zu and %zu rows",
                     s->dimension, s->capacity, dimension, n);
        return -1;
    }
    *out = (Segment){
        .n = n, .packed4 = s->buffers[PACKED4].buf, .codes8 = s->buffers[CODES8].buf, .e4 = s->buffers[E4].buf,
        .e8 = s->buffers[E8].buf, .mean = s->buffers[MEAN].buf, .stats = s->buffers[STATS].buf,
        .rows = s->buffers[ROWS].buf, .ids = s->buffers[IDS].buf, .live = s->buffers[LIVE].buf, .filter = NULL,
    };
    if (!filter || filter == Py_None)
        return 0;
    if (!take_buffer(filter, view, "IL", 4, (n + BLOCK - 1) / BLOCK, 0, "filter"))
        return -1;
    out->filter = view->buf;
    return 1;
}

static PyObject *py_search(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *segments, *counts, *filters, *probes, *similarities, *ids, *scores;
    Py_ssize_t dimension, n_probes, k;
    int threads;
    const char *name;
    if (!PyArg_ParseTuple(args, "nO!O!OOnniOOOz", &dimension, &PyTuple_Type, &segments, &PyTuple_Type, &counts,
                          &filters, &probes, &n_probes, &k, &threads, &similarities, &ids, &scores, &name))
        return NULL;
    const Kernel *kernel = facedex_kernel(name);
    if (!kernel)
        return PyErr_Format(PyExc_ValueError, "kernel '%s' does not run here", name);
    const Py_ssize_t n_segments = PyTuple_Size(segments);
    if (dimension < 1 || dimension > MAX_DIMENSION || n_probes < 0 || k < 1 || threads < 1 ||
        n_probes > PY_SSIZE_T_MAX / MAX_DIMENSION / 8 || (n_probes && k > PY_SSIZE_T_MAX / n_probes / 8)) {
        PyErr_SetString(PyExc_ValueError, "dimension, number of probes, k or threads out of range");
        return NULL;
    }
    if (PyTuple_Size(counts) != n_segments ||
        (filters != Py_None && (!PyTuple_Check(filters) || PyTuple_Size(filters) != n_segments))) {
        PyErr_SetString(PyExc_ValueError, "segments, counts and filters must be as many");
        return NULL;
    }
    PyObject *result = NULL;
    Py_buffer view[4];
    int held = 0, n_filters = 0;
    Segment *list = PyMem_Calloc((size_t)n_segments + 1, sizeof *list);
    Py_buffer *filter_views = PyMem_Calloc((size_t)n_segments + 1, sizeof *filter_views);
    if (!list || !filter_views) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n_segments; i++) {
        const int took = fill_segment(list + i, PyTuple_GetItem(segments, i), PyTuple_GetItem(counts, i),
                                      filters == Py_None ? NULL : PyTuple_GetItem(filters, i), (size_t)dimension,
                                      filter_views + n_filters);
        if (took < 0)
            goto done;
        n_filters += took;
    }
    const size_t cells = (size_t)n_probes * (size_t)k;
    if (!take_buffer(probes, &view[0], "f", 4, (size_t)n_probes * (size_t)dimension, 0, "probes"))
        goto done;
    held++;
    if (!take_buffer(similarities, &view[1], "f", 4, cells, 1, "similarities"))
        goto done;
    held++;
    if (!take_buffer(ids, &view[2], "lq", 8, cells, 1, "ids"))
        goto done;
    held++;
    if (scores != Py_None) {
        if (!take_buffer(scores, &view[3], "d", 8, cells, 1, "scores"))
            goto done;
        held++;
    }
    {
        Search search = {
            .kernel = kernel, .dimension = (size_t)dimension, .n_segments = (size_t)n_segments, .segments = list,
            .n_probes = (size_t)n_probes, .probes = view[0].buf, .k = (size_t)k,
            .threads = threads < MOST_THREADS ? threads : MOST_THREADS, .similarities = view[1].buf, .ids = view[2].buf,
            .scores = scores == Py_None ? NULL : view[3].buf,
        };
        size_t bad = 0;
        Status status;
        Py_BEGIN_ALLOW_THREADS
        status = facedex_search(&search, &bad);
        Py_END_ALLOW_THREADS
        if (status == NO_MEMORY)
            PyErr_NoMemory();
        else
            result = Py_BuildValue("nKK", status == BAD_VECTOR ? (Py_ssize_t)bad : (Py_ssize_t)-1,
                                   (unsigned long long)search.counts[0], (unsigned long long)search.counts[1]);
    }
done:
    while (held)
        PyBuffer_Release(&view[--held]);
    while (n_filters)
        PyBuffer_Release(&filter_views[--n_filters]);
    PyMem_Free(list);
    PyMem_Free(filter_views);
    return result;
}

static PyObject *py_checksum(PyObject *module, PyObject *object)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS) != 0)
        return NULL;
    uint64_t sum;
    Py_BEGIN_ALLOW_THREADS
    sum = facedex_checksum(view.buf, (size_t)view.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(sum);
}

static PyObject *py_kernels(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    PyObject *names = PyList_New(0);
    for (const Kernel *const *k = facedex_kernels(); names && *k; k++) {
        if (!facedex_kernel((*k)->name))
            continue;
        PyObject *name = PyUnicode_FromString((*k)->name);
        if (!name || PyList_Append(names, name) != 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyMethodDef methods[] = {
    {"encode", py_encode, METH_VARARGS,
     "encode(dimension, first, n, rows, mean, packed4, codes8, e4, e8, stats) -> first row not of unit length, or -1"},
    {"rotate", py_rotate, METH_VARARGS, "rotate(dimension, n, rows, out)"},
    {"search", py_search, METH_VARARGS,
     "search(dimension, segments, counts, filters, probes, n_probes, k, threads, similarities, ids, scores, kernel) -> "
     "(first probe not of unit length or -1, rows refined, rows rescored)"},
    {"checksum", py_checksum, METH_O, "checksum(bytes) -> int of 64 bits"},
    {"kernels", py_kernels, METH_NOARGS, "kernels() -> names of those that run here, the default first"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_doc = "The compiled scan; see kernels/kernels.h.", .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
    segment_type = PyType_FromSpec(&segment_spec);
    if (!segment_type || PyModule_AddObjectRef(module, "Segment", segment_type) != 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
