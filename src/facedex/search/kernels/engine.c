#include "engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#define FACEDEX_THREADS 1
#include <pthread.h>
#endif

/* How far the float32 arithmetic around the codes (rotation: at most 4 log2(4096) + 4 roundings of 2^-24 each, on
 * probe and row; centring; lengths of residuals) can move a similarity, with room to spare: 2 * 52 * 6e-8 = 6e-6. */
#define SLACK 2e-5
#if defined(__GNUC__) || defined(__clang__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif
/* values of a gallery that is compared in float32 at most: beyond, codes win whatever is asked */
#define MOST_DIRECT 9000000
/* rows and probes are of unit length within this (squared length within twice of it) */
#define UNIT_TOLERANCE 1e-3
#define PROBE_LIMIT4 127
#define SIGN_SEED UINT64_C(0x6661636564657801)

size_t facedex_padded(size_t dimension) { return (dimension + 7) / 8 * 8; }
size_t facedex_chunks(size_t dimension) { return (facedex_padded(dimension) / 4 + CHUNK_GROUPS - 1) / CHUNK_GROUPS; }

/* ---- rotation ---------------------------------------------------------------------------------------------------- */

static uint64_t splitmix(uint64_t *state) /* Steele, Lea, Flood 2014 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void facedex_signs(size_t dimension, float *signs)
{
    uint64_t state = SIGN_SEED, bits = 0;
    for (size_t i = 0; i < 2 * dimension; i++, bits >>= 1) {
        if (i % 64 == 0)
            bits = splitmix(&state);
        signs[i] = bits & 1 ? -1.0f : 1.0f;
    }
}

static void hadamard(float *x, size_t n)
{
    if (n >= 4)
        for (size_t i = 0; i < n; i += 4) {
            const float a = x[i] + x[i + 1], b = x[i] - x[i + 1], c = x[i + 2] + x[i + 3], d = x[i + 2] - x[i + 3];
            x[i] = a + c, x[i + 1] = b + d, x[i + 2] = a - c, x[i + 3] = b - d;
        }
    for (size_t h = n >= 4 ? 4 : 1; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j++) {
                const float a = x[j], b = x[j + h];
                x[j] = a + b, x[j + h] = a - b;
            }
    const float scale = (float)(1.0 / sqrt((double)n));
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* Spreads every direction over all dimensions, so that one step width suits them all.  Two rounds; when the dimension
 * is no power of two, one round turns the first and one the last 2^m dimensions, which overlap in more than half. */
void facedex_rotate(const float *x, size_t dimension, const float *signs, float *out)
{
    size_t m = 1;
    while (2 * m <= dimension)
        m *= 2;
    for (size_t d = 0; d < dimension; d++)
        out[d] = x[d] * signs[d];
    hadamard(out, m);
    for (size_t d = 0; d < dimension; d++)
        out[d] *= signs[dimension + d];
    hadamard(out + (dimension - m), m);
    for (size_t d = dimension; d < facedex_padded(dimension); d++)
        out[d] = 0;
}

/* Whether |x| = 1 within the tolerance; false for anything not finite. */
static int is_unit(const float *x, size_t dimension)
{
    double sum[4] = {0};
    size_t d = 0;
    for (; d + 4 <= dimension; d += 4)
        for (int i = 0; i < 4; i++)
            sum[i] += (double)x[d + i] * x[d + i];
    for (; d < dimension; d++)
        sum[0] += (double)x[d] * x[d];
    return fabs(sum[0] + sum[1] + sum[2] + sum[3] - 1.0) <= 2 * UNIT_TOLERANCE;
}

/* The same, but in float32 first, whose error is below 3e-4 for D <= 4096: nearly always that decides. */
static int is_unit_fast(const Kernel *kernel, const float *x, size_t dimension)
{
    return fabsf(kernel->square(x, dimension) - 1.0f) <= 2 * UNIT_TOLERANCE - 3e-4 || is_unit(x, dimension);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* floor of v within lo...hi; without a call of floorf, which stops the compiler from vectorizing */
static int clamp(float v, int lo, int hi)
{
    v = v < (float)lo ? (float)lo : v > (float)hi ? (float)hi : v;
    const int whole = (int)v;
    return whole - ((float)whole > v);
}

/* a length, rounded up over all float32 rounding behind it */
static float length_above(float sum_of_squares) { return sqrtf(sum_of_squares) * 1.0005f + 1e-6f; }

Status facedex_encode(const float *rows, size_t n, size_t dimension, size_t first, const float *mean, uint8_t *packed4,
                      uint8_t *codes8, float *e4, float *e8, double *stats, size_t *bad)
{
    const size_t padded = facedex_padded(dimension), chunks = facedex_chunks(dimension);
    const float step4 = (float)stats[STAT_STEP4], step8 = (float)stats[STAT_STEP8];
    const float inverse4 = 1 / step4, inverse8 = 1 / step8;
    float *signs = malloc((2 * dimension + padded) * sizeof *signs);
    if (!signs)
        return NO_MEMORY;
    float *x = signs + 2 * dimension;
    facedex_signs(dimension, signs);
    Status status = OK;
    for (size_t i = 0; i < n; i++) {
        if (!is_unit(rows + i * dimension, dimension)) {
            *bad = i;
            status = BAD_VECTOR;
            break;
        }
        facedex_rotate(rows + i * dimension, dimension, signs, x);
        const size_t row = first + i, block = row / BLOCK, r = row % BLOCK;
        uint8_t *nibbles = packed4 + block * padded * (BLOCK / 2) + 4 * r, *code = codes8 + row * padded;
        float rest4 = 0, rest8 = 0, norm4 = 0;
        int64_t norm8 = 0;
        for (size_t chunk = 0; chunk < chunks; chunk++) {
            int32_t lane[2] = {0, 0};
            const size_t start = chunk * CHUNK_GROUPS * 4;
            const size_t end = start + CHUNK_GROUPS * 4 < padded ? start + CHUNK_GROUPS * 4 : padded;
            for (size_t d = start; d < end; d += 8)
                for (size_t j = 0; j < 4; j++) {
                    int c4[2];
                    for (size_t half = 0; half < 2; half++) {
                        const size_t at = d + 4 * half + j;
                        const float v = x[at] - mean[at];
                        c4[half] = clamp(v * inverse4 + 8.0f, 0, 15);
                        const int c8 = clamp(v * inverse8 + 0.5f, -127, 127);
                        const float a = v - ((float)c4[half] - 7.5f) * step4, b = v - (float)c8 * step8;
                        rest4 += a * a;
                        rest8 += b * b;
                        norm4 += ((float)c4[half] - 7.5f) * ((float)c4[half] - 7.5f);
                        lane[j / 2] += c8 * c8;
                        code[at] = (uint8_t)(c8 + 128);
                    }
                    nibbles[(d / 8) * 128 + j] = (uint8_t)(c4[0] | c4[1] << 4);
                }
            for (size_t l = 0; l < 2; l++) {
                norm8 += lane[l];
                if (lane[l] > stats[STAT_LANES + 2 * chunk + l])
                    stats[STAT_LANES + 2 * chunk + l] = lane[l];
            }
        }
        const float length4 = length_above(rest4);
        e8[row] = length_above(rest8);
        if (length4 > e4[block])
            e4[block] = length4;
        if (length_above(norm4) > stats[STAT_NORM4])
            stats[STAT_NORM4] = length_above(norm4);
        if (length_above((float)norm8) > stats[STAT_NORM8])
            stats[STAT_NORM8] = length_above((float)norm8);
    }
    free(signs);
    return status;
}

/* ---- probes ------------------------------------------------------------------------------------------------------ */

/* One probe coded for one of the scans: similarity ~ mean part + step * (score + delta) * inverse */
typedef struct {
    float scale, inverse, delta, rest; /* rest: length of what the probe's codes leave out, in probe units */
} Coding;

typedef struct {
    size_t padded, groups, chunks;
    int8_t *codes;    /* n_probes x padded: for scan4 or scan8, whichever is used */
    int16_t *fine;    /* n_probes x padded: for refine */
    int32_t *init;    /* n_probes x chunks */
    int32_t *total;   /* n_probes */
    Coding *coarse, *exact;
    int64_t *fine_sum;
    float *length;    /* |T y|, rounded up */
    float *mean_part; /* n_segments x n_probes: <mean, T y> */
    uint32_t *tau;    /* float bits: the k-th best lower bound any thread has seen */
    int bits;         /* which codes are scanned: 4 or 8 */
} Probes;

/* Codes of y with |code| <= limit, and the int16 lanes within `lane_limit[lane]` in length. */
static void code_probe(const Kernel *kernel, const float *y, const Probes *p, int bits, const double *lane_limit,
                       int8_t *codes, int32_t *init, int32_t *total, Coding *coding)
{
    const int limit = bits == 4 ? PROBE_LIMIT4 : kernel->probe_limit8;
    float largest = 0;
    for (size_t d = 0; d < p->padded; d++)
        largest = fabsf(y[d]) > largest ? fabsf(y[d]) : largest;
    double scale = (limit + 0.49) / (largest > 1e-20f ? largest : 1e-20f);
    if (kernel->wraps)
        for (size_t l = 0; l < 2 * p->chunks; l++) {
            double square = 0;
            size_t members = 0;
            for (size_t g = l / 2 * CHUNK_GROUPS; g < p->groups && g < (l / 2 + 1) * CHUNK_GROUPS; g++, members += 2)
                for (size_t i = 0; i < 2; i++) {
                    const double v = y[4 * g + 2 * (l & 1) + i];
                    square += v * v;
                }
            /* |code| <= scale |y| + the rounding of each member, at most 1/2 */
            const double room = lane_limit[l] - 0.5 * sqrt((double)members);
            if (room > 0 && scale * sqrt(square) > room)
                scale = room / sqrt(square);
            else if (room <= 0)
                scale = 0;
        }
    if (scale > 1e30)
        scale = 1e30;
    const float s = (float)(scale * 0.99999);
    const float inverse = s > 0 ? 1 / s : 0;
    float rest = 0;
    int32_t sum[2] = {0, 0};
    int64_t all = 0, offset = 0;
    for (size_t g = 0, chunk = 0; g < p->groups; g++) {
        for (size_t i = 0; i < 4; i++) {
            const size_t d = 4 * g + i;
            const int c = clamp(y[d] * s + 0.5f, -limit, limit);
            const float left = y[d] - (float)c * inverse;
            rest += left * left;
            codes[d] = (int8_t)c;
            sum[i / 2] += c;
        }
        if ((g + 1) % CHUNK_GROUPS == 0 || g + 1 == p->groups) {
            int32_t lane[2];
            for (int l = 0; l < 2; l++) { /* the codes' middle, 7.5 (rounded down in the product) or 128 */
                lane[l] = bits == 4 ? (int32_t)floor(7.5 * sum[l]) : 128 * sum[l];
                offset += lane[l];
                all += sum[l];
                sum[l] = 0;
            }
            init[chunk++] = (int32_t)((uint32_t)(uint16_t)-lane[0] | (uint32_t)(uint16_t)-lane[1] << 16);
        }
    }
    *total = (int32_t)-offset;
    coding->scale = s;
    coding->inverse = inverse;
    coding->delta = bits == 4 ? (float)((double)offset - 7.5 * (double)all) : 0;
    coding->rest = length_above(rest);
}

static int64_t code_probe_fine(const float *y, size_t padded, int16_t *codes, Coding *coding)
{
    float largest = 1e-20f;
    double sum = 0;
    for (size_t d = 0; d < padded; d++) {
        largest = fabsf(y[d]) > largest ? fabsf(y[d]) : largest;
        sum += fabsf(y[d]);
    }
    /* 255 * sum |code| < 2^31, rounding of every code included */
    const double room = 2147483647.0 / 255 - (double)padded;
    double scale = 32766.0 / largest;
    if (sum * scale > room)
        scale = room / sum;
    const float s = (float)(scale * 0.99999), inverse = 1 / s;
    float rest = 0;
    int64_t total = 0;
    for (size_t d = 0; d < padded; d++) {
        const int c = clamp(y[d] * s + 0.5f, -32767, 32767);
        const float left = y[d] - (float)c * inverse;
        rest += left * left;
        codes[d] = (int16_t)c;
        total += c;
    }
    *coding = (Coding){.scale = s, .inverse = inverse, .delta = 0, .rest = length_above(rest)};
    return total;
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

typedef struct {
    float lower, upper;
    uint32_t segment, row;
} Candidate;

typedef struct { /* of one probe and one thread */
    Candidate *items;
    float *best; /* min-heap of the k largest lower bounds */
    size_t n, room, n_best, best_room;
    int own_items, own_best; /* allocated by itself; the first few come from one block for all lists */
} List;

typedef struct {
    double score;
    int64_t id;
} Entry;

typedef struct {
    Search *search;
    Probes probes;
    List *lists;       /* threads x n_probes */
    int threads;       /* of this search, at least 1 */
    size_t group;      /* probes of an item */
    size_t n_groups;
    size_t span;       /* blocks of an item */
    size_t n_spans;    /* of all segments */
    size_t n_rows;
    size_t n_blocks;
    enum { CODES, FLOAT64, FLOAT32 } way; /* what the rows are first compared by */
    size_t bad;        /* the first probe that is not of unit length, atomic; direct ways check as they go */
    size_t next;       /* item to take, atomic */
    int finishing;     /* 0: scanning, 1: rescoring */
    int failed;        /* out of memory, atomic */
    uint64_t refined, rescored; /* atomic */
} Job;

static float from_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

static uint32_t to_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

#if defined(__GNUC__) || defined(__clang__)
#define LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define ADD(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define PREFETCH(p) __builtin_prefetch(p)
#else /* one thread there */
#define LOAD(p) (*(p))
#define ADD(p, v) ((*(p) += (v)) - (v))
#define STORE(p, v) (*(p) = (v))
#define PREFETCH(p) ((void)(p))
#endif

static void raise_tau(uint32_t *tau, float value)
{
#ifdef FACEDEX_THREADS
    uint32_t seen = LOAD(tau);
    while (from_bits(seen) < value &&
           !__atomic_compare_exchange_n(tau, &seen, to_bits(value), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#else
    if (from_bits(*tau) < value)
        *tau = to_bits(value);
#endif
}

static void note_bad(Job *job, size_t q)
{
#ifdef FACEDEX_THREADS
    size_t seen = LOAD(&job->bad);
    while (q < seen && !__atomic_compare_exchange_n(&job->bad, &seen, q, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
#else
    job->bad = q < job->bad ? q : job->bad;
#endif
}

static uint32_t lowest_bit(uint32_t mask)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_ctz(mask);
#else
    uint32_t r = 0;
    while (!(mask >> r & 1))
        r++;
    return r;
#endif
}

static uint32_t bits_in(uint32_t mask)
{
#if defined(__GNUC__) || defined(__clang__)
    return (uint32_t)__builtin_popcount(mask);
#else
    uint32_t n = 0;
    for (; mask; mask &= mask - 1)
        n++;
    return n;
#endif
}

/* Like realloc, for memory that may not be its own yet. */
static void *grow(void *memory, size_t used, size_t bytes, int *own)
{
    void *larger = *own ? realloc(memory, bytes) : malloc(bytes);
    if (larger && !*own) {
        if (used)
            memcpy(larger, memory, used);
        *own = 1;
    }
    return larger;
}

/* Keep the k largest of the values offered; false when out of memory. */
static int offer(List *list, size_t k, float value)
{
    float *h = list->best;
    size_t i;
    if (list->n_best < k) {
        if (list->n_best == list->best_room) {
            size_t room = list->best_room ? 2 * list->best_room : 16;
            h = grow(h, list->best_room * sizeof *h, room * sizeof *h, &list->own_best);
            if (!h)
                return 0;
            list->best = h;
            list->best_room = room;
        }
        for (i = list->n_best++; i && h[(i - 1) / 2] > value; i = (i - 1) / 2)
            h[i] = h[(i - 1) / 2];
        h[i] = value;
        return 1;
    }
    if (value <= h[0])
        return 1;
    for (i = 0;;) {
        size_t child = 2 * i + 1;
        if (child >= k)
            break;
        if (child + 1 < k && h[child + 1] < h[child])
            child++;
        if (h[child] >= value)
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = value;
    return 1;
}

static void keep(Job *job, List *list, size_t q, Candidate c)
{
    const size_t k = job->search->k;
    uint32_t *tau = job->probes.tau + q;
    if (list->n == list->room) {
        const float t = from_bits(LOAD(tau));
        size_t kept = 0;
        for (size_t i = 0; i < list->n; i++)
            if (list->items[i].upper >= t)
                list->items[kept++] = list->items[i];
        list->n = kept;
        if (kept * 2 >= list->room) {
            const size_t room = list->room ? 2 * list->room : 64;
            Candidate *items = grow(list->items, list->room * sizeof *items, room * sizeof *items, &list->own_items);
            if (!items) {
                STORE(&job->failed, 1);
                return;
            }
            list->items = items;
            list->room = room;
        }
    }
    list->items[list->n++] = c;
    if (list->n_best == k && c.lower <= list->best[0])
        return;
    if (!offer(list, k, c.lower)) {
        STORE(&job->failed, 1);
        return;
    }
    if (list->n_best == k)
        raise_tau(tau, list->best[0]);
}

/* Second look at a row: 8-bit codes, 16-bit probe.  What does not change from row to row: */
typedef struct {
    const uint8_t *codes;
    const float *errors;
    const int16_t *probe;
    int32_t (*dot)(const uint8_t *code, const int16_t *probe, size_t n);
    size_t padded, q;
    double start, scale;
    float per_error, always;
    uint32_t segment;
} Refiner;

static Refiner refiner_of(const Job *job, size_t s, size_t q)
{
    const Probes *p = &job->probes;
    const Segment *segment = job->search->segments + s;
    const double step = segment->stats[STAT_STEP8], scale = step * p->exact[q].inverse;
    return (Refiner){
        .codes = segment->codes8, .errors = segment->e8, .probe = p->fine + q * p->padded,
        .dot = job->search->kernel->refine, .padded = p->padded, .q = q, .segment = (uint32_t)s, .scale = scale,
        .start = p->mean_part[s * job->search->n_probes + q] - 128.0 * (double)p->fine_sum[q] * scale,
        .per_error = p->length[q], .always = (float)(segment->stats[STAT_NORM8] * step * p->exact[q].rest + SLACK),
    };
}

static void refine_rows(Job *job, List *list, const Refiner *f, size_t block, uint32_t mask)
{
    const uint32_t *tau = job->probes.tau + f->q;
    for (; mask; mask &= mask - 1) {
        const size_t row = block * BLOCK + lowest_bit(mask);
        const float v = (float)(f->start + f->dot(f->codes + row * f->padded, f->probe, f->padded) * f->scale);
        const float error = f->errors[row] * f->per_error + f->always;
        if (v + error >= from_bits(LOAD(tau)))
            keep(job, list, f->q,
                 (Candidate){.lower = v - error, .upper = v + error, .segment = f->segment, .row = (uint32_t)row});
    }
}

/* ---- scanning ---------------------------------------------------------------------------------------------------- */

static uint32_t live_rows(const Segment *segment, size_t block)
{
    uint32_t live = segment->live[block];
    if (segment->filter)
        live &= segment->filter[block];
    const size_t left = segment->n - block * BLOCK;
    return left < BLOCK ? live & ((UINT32_C(1) << left) - 1) : live;
}

/* score > threshold: the only rows whose upper bound can reach tau; room for the float32 rounding behind `value` */
static int32_t threshold(float value)
{
    value -= 3.0f + fabsf(value) * 1e-6f;
    value = value > -2e9f ? value : -2e9f; /* not a number: everything passes */
    value = value < 2e9f ? value : 2e9f;
    return (int32_t)value;
}

typedef struct {
    float gain, at, per_error; /* threshold = (tau - at) * gain - e4 * per_error - delta */
} Line;

static Line line_of(const Job *job, size_t s, size_t q)
{
    const Probes *p = &job->probes;
    const double *stats = job->search->segments[s].stats;
    const double step = stats[p->bits == 4 ? STAT_STEP4 : STAT_STEP8];
    const double norm = stats[p->bits == 4 ? STAT_NORM4 : STAT_NORM8];
    const Coding *c = p->coarse + q;
    Line line;
    line.gain = (float)(c->scale / step);
    line.at = (float)(p->mean_part[s * job->search->n_probes + q] + norm * step * c->rest + SLACK);
    line.per_error = p->length[q] * line.gain;
    return line;
}

/* A few probes: each scans the packed codes of a span, which stays in cache from one probe to the next.
 *
 * The 8-bit codes of the rows that pass are asked for at once and looked at after the next run has been scanned, when
 * they have arrived. */
enum { RUN = 64 };

typedef struct {
    size_t first, n;
    uint32_t masks[RUN];
} Passed;

static void refine_passed(Job *job, List *list, const Refiner *f, Passed *passed)
{
    for (size_t i = 0; i < passed->n; i++)
        if (passed->masks[i])
            refine_rows(job, list, f, passed->first + i, passed->masks[i]);
    passed->n = 0;
}

static void scan_span(Job *job, List *list, size_t q, size_t s, size_t first, size_t end)
{
    const Probes *p = &job->probes;
    const Kernel *kernel = job->search->kernel;
    const Segment *segment = job->search->segments + s;
    const size_t block_bytes = p->padded * (BLOCK / 2);
    const Line line = line_of(job, s, q);
    const Refiner refiner = refiner_of(job, s, q);
    Passed passed[2];
    passed[0].n = passed[1].n = 0;
    int now = 0;
    int32_t thr[RUN];
    uint64_t refined = 0;
    size_t longest = 1; /* short runs first: they find a threshold */
    for (size_t b = first; b < end;) {
        if (!live_rows(segment, b)) {
            b++;
            continue;
        }
        size_t run = 1;
        if (from_bits(LOAD(p->tau + q)) > -2 && longest < RUN / 2)
            longest = RUN / 2;
        while (run < longest && b + run < end && live_rows(segment, b + run))
            run++;
        const float base = (from_bits(LOAD(p->tau + q)) - line.at) * line.gain - p->coarse[q].delta;
        for (size_t i = 0; i < run; i++)
            thr[i] = threshold(base - segment->e4[b + i] * line.per_error);
        Passed *here = &passed[now];
        here->first = b;
        here->n = run;
        kernel->scan4(segment->packed4 + b * block_bytes, run, p->groups, p->codes + q * p->padded,
                      p->init + q * p->chunks, p->total[q], thr, here->masks);
        for (size_t i = 0; i < run; i++) {
            here->masks[i] &= live_rows(segment, b + i);
            for (uint32_t m = here->masks[i]; m; m &= m - 1, refined++) {
                const size_t row = (b + i) * BLOCK + lowest_bit(m);
                PREFETCH(segment->e8 + row);
                for (size_t d = 0; d < p->padded; d += 64)
                    PREFETCH(segment->codes8 + row * p->padded + d);
            }
        }
        now = 1 - now;
        refine_passed(job, list, &refiner, &passed[now]);
        if (longest < RUN / 2) /* no patience yet: the threshold is worth more than the wait */
            refine_passed(job, list, &refiner, &passed[1 - now]);
        longest = 2 * longest < RUN ? 2 * longest : RUN;
        b += run;
    }
    refine_passed(job, list, &refiner, &passed[0]);
    refine_passed(job, list, &refiner, &passed[1]);
    ADD(&job->refined, refined);
}

/* A block in the layout of scan8; returns the largest error of its rows. */
static float unpack_block(const Job *job, const Segment *segment, size_t b, uint8_t *block)
{
    const Probes *p = &job->probes;
    const Kernel *kernel = job->search->kernel;
    if (p->bits == 4) {
        kernel->unpack4(segment->packed4 + b * p->padded * (BLOCK / 2), p->groups, block);
        return segment->e4[b];
    }
    kernel->unpack8(segment->codes8 + b * BLOCK * p->padded, p->groups, block);
    const size_t rows = segment->n - b * BLOCK < BLOCK ? segment->n - b * BLOCK : BLOCK;
    float error = 0;
    for (size_t r = 0; r < rows; r++)
        error = segment->e8[b * BLOCK + r] > error ? segment->e8[b * BLOCK + r] : error;
    return error;
}

/* The k-th largest of n values, which are reordered; Hoare 1961. */
static int32_t kth_largest(int32_t *v, size_t n, size_t k)
{
    size_t low = 0, high = n - 1, at = k - 1;
    while (low < high) {
        const int32_t middle = v[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (v[i] > middle)
                i++;
            while (v[j] < middle)
                j--;
            if (i >= j)
                break;
            const int32_t swapped = v[i];
            v[i++] = v[j];
            v[j--] = swapped;
        }
        /* everything before i is at least, everything after j at most the middle */
        if (i == j && at == i)
            return v[at];
        if (at < i)
            high = i - 1;
        else if (i == j)
            low = i + 1;
        else
            low = i;
    }
    return v[low];
}

/* A first threshold from the integer scores of the first rows, without looking at any of them twice: without it, nearly
 * all of the first rows would be refined. */
static void find_thresholds(Job *job, size_t s, size_t first, size_t end, size_t q0, size_t q1, uint8_t *block)
{
    const Probes *p = &job->probes;
    const Search *search = job->search;
    const Segment *segment = search->segments + s;
    const size_t n = q1 - q0, k = search->k, want = k < 16 ? 2 : (8 * k + BLOCK - 1) / BLOCK;
    const size_t blocks = end - first < want ? end - first : want;
    if (k > 256)
        return;
    int32_t *scores = malloc((n * BLOCK + n * blocks * BLOCK) * sizeof *scores);
    if (!scores)
        return; /* slower, not wrong */
    int32_t *kept = scores + n * BLOCK;
    size_t m = 0;
    float error = 0;
    for (size_t b = first; b < first + blocks; b++) {
        const uint32_t live = live_rows(segment, b);
        if (!live)
            continue;
        const float e = unpack_block(job, segment, b, block);
        error = e > error ? e : error;
        search->kernel->scan8(block, p->groups, n, p->codes + q0 * p->padded, p->padded, p->init + q0 * p->chunks,
                              p->chunks, p->total + q0, NULL, NULL, scores);
        size_t added = 0;
        for (size_t i = 0; i < n; i++) {
            int32_t *to = kept + i * blocks * BLOCK + m;
            const int32_t *from = scores + i * BLOCK;
            if (live == UINT32_MAX)
                memcpy(to, from, BLOCK * sizeof *to);
            else
                for (uint32_t bits = live; bits; bits &= bits - 1)
                    *to++ = from[lowest_bit(bits)];
        }
        for (uint32_t bits = live; bits; bits &= bits - 1)
            added++;
        m += added;
    }
    for (size_t i = 0; i < n && m >= k; i++) {
        const size_t q = q0 + i;
        const Line line = line_of(job, s, q);
        if (!(line.gain > 1e-20f))
            continue;
        const float mean = p->mean_part[s * search->n_probes + q];
        const float score = (float)kth_largest(kept + i * blocks * BLOCK, m, k) + p->coarse[q].delta;
        /* the lower bound mirrors the upper one: line.at is the mean part plus everything that is always uncertain */
        const float lower = mean + score / line.gain - (line.at - mean) - error * p->length[q];
        raise_tau(p->tau + q, lower - 1e-6f - fabsf(score / line.gain) * 1e-6f);
    }
    free(scores);
}

/* The next part of a block of memory; without memory only the size of the block is computed. */
static void *take(uint8_t *memory, size_t *at, size_t bytes)
{
    const size_t start = *at;
    *at += (bytes + 63) / 64 * 64;
    return memory ? memory + start : NULL;
}

/* What a thread works with that scans for many probes. */
enum { STRIP = 4 };

typedef struct {
    uint8_t *blocks; /* STRIP of them, unpacked */
    float *gain, *at, *delta, *per_error, *tau;
    int32_t *thr;
    uint32_t *masks; /* padded to an even number, with nobody there */
} Group;

static size_t lay_out_group(Group *g, uint8_t *memory, size_t padded, size_t n)
{
    size_t at = 0;
    g->blocks = take(memory, &at, STRIP * padded * BLOCK);
    g->gain = take(memory, &at, n * sizeof *g->gain);
    g->at = take(memory, &at, n * sizeof *g->at);
    g->delta = take(memory, &at, n * sizeof *g->delta);
    g->per_error = take(memory, &at, n * sizeof *g->per_error);
    g->tau = take(memory, &at, n * sizeof *g->tau);
    g->thr = take(memory, &at, n * sizeof *g->thr);
    g->masks = take(memory, &at, (n + n % 2) * sizeof *g->masks);
    return at;
}

/* Many probes: a strip of blocks is unpacked once and meets all probes of the group before the next one.  Thresholds
 * are worked out once a strip, in loops that the compiler can vectorize. */
static void scan_group(Job *job, List *lists, size_t s, size_t first, size_t end, size_t q0, size_t q1, const Group *g)
{
    const Probes *p = &job->probes;
    const Search *search = job->search;
    const Segment *segment = search->segments + s;
    const size_t n = q1 - q0, block_bytes = p->padded * BLOCK;
    uint64_t refined = 0;
    for (size_t i = 0; i < n; i++) {
        const Line line = line_of(job, s, q0 + i);
        g->gain[i] = line.gain;
        g->at[i] = line.at;
        g->per_error[i] = line.per_error;
        g->delta[i] = p->coarse[q0 + i].delta;
    }
    if (n % 2)
        g->masks[n] = 0;
    if (from_bits(LOAD(p->tau + q0)) == -INFINITY)
        find_thresholds(job, s, first, end, q0, q1, g->blocks);
    for (size_t b = first; b < end;) {
        size_t strip[STRIP], filled = 0;
        float error = 0;
        for (; filled < STRIP && b < end; b++)
            if (live_rows(segment, b)) {
                const float e = unpack_block(job, segment, b, g->blocks + filled * block_bytes);
                error = e > error ? e : error;
                strip[filled++] = b;
            }
        for (size_t i = 0; i < n; i++)
            g->tau[i] = from_bits(LOAD(p->tau + q0 + i));
        for (size_t i = 0; i < n; i++)
            g->thr[i] = threshold((g->tau[i] - g->at[i]) * g->gain[i] - g->delta[i] - error * g->per_error[i]);
        for (size_t j = 0; j < filled; j++) {
            search->kernel->scan8(g->blocks + j * block_bytes, p->groups, n, p->codes + q0 * p->padded, p->padded,
                                  p->init + q0 * p->chunks, p->chunks, p->total + q0, g->thr, g->masks, NULL);
            const uint32_t live = live_rows(segment, strip[j]);
            for (size_t i = 0; i < n; i += 2) {
                if (!(g->masks[i] | g->masks[i + 1]))
                    continue;
                for (size_t q = i; q < i + 2; q++)
                    if (g->masks[q] & live) {
                        const Refiner refiner = refiner_of(job, s, q0 + q);
                        refined++;
                        refine_rows(job, lists + q0 + q, &refiner, strip[j], g->masks[q] & live);
                    }
            }
        }
    }
    ADD(&job->refined, refined);
}

static size_t blocks_of(const Segment *segment) { return (segment->n + BLOCK - 1) / BLOCK; }

enum { PIECE = 2048 };

static void scan_item(Job *job, int thread, size_t item, const Group *scratch)
{
    const Search *search = job->search;
    const size_t q0 = item % job->n_groups * job->group;
    const size_t q1 = q0 + job->group < search->n_probes ? q0 + job->group : search->n_probes;
    List *lists = job->lists + (size_t)thread * search->n_probes;
    /* a span may reach over several segments: blocks are counted through */
    size_t first = item / job->n_groups * job->span, end = first + job->span;
    for (size_t s = 0; s < search->n_segments; s++) {
        const size_t blocks = blocks_of(search->segments + s);
        if (first < blocks) {
            const size_t stop = end < blocks ? end : blocks;
            if (scratch)
                scan_group(job, lists, s, first, stop, q0, q1, scratch);
            else
                for (size_t b = first; b < stop; b += PIECE) /* from the cache for all probes but the first */
                    for (size_t q = q0; q < q1; q++)
                        scan_span(job, lists + q, q, s, b, b + PIECE < stop ? b + PIECE : stop);
        }
        if (end <= blocks)
            return;
        first = first > blocks ? first - blocks : 0;
        end -= blocks;
    }
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static int worse(Entry a, Entry b) { return a.score < b.score || (a.score == b.score && a.id > b.id); }

static void sink(Entry *heap, size_t n, Entry e) /* the worst at the root */
{
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && worse(heap[child + 1], heap[child]))
            child++;
        if (!worse(heap[child], e))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = e;
}

static void collect(Entry *heap, size_t *n, size_t k, Entry e)
{
    if (*n < k) {
        size_t i = (*n)++;
        for (; i && worse(e, heap[(i - 1) / 2]); i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
        heap[i] = e;
    } else if (worse(heap[0], e))
        sink(heap, k, e);
}

enum { SHORT = 8 };

/* Eight by counting how many are better, without a branch; equal scores stay in order here and in the merges. */
static void sort_short(const Entry from[SHORT], Entry to[SHORT])
{
    UNROLL for (int i = 0; i < SHORT; i++)
    {
        size_t rank = 0;
        UNROLL for (int j = 0; j < SHORT; j++)
            rank += j < i ? from[j].score >= from[i].score : from[j].score > from[i].score;
        to[rank] = from[i];
    }
}

/* Two sorted runs of the same length into one, from both ends at once: neither waits for the other, nothing branches. */
static void merge_even(const Entry *from, size_t run, Entry *to)
{
    const Entry *left = from, *right = from + run, *left_end = right - 1, *right_end = right + run - 1;
    Entry *end = to + 2 * run - 1;
    for (size_t i = 0; i < run; i++) {
        const size_t second = left->score < right->score;
        *to++ = *(second ? right : left);
        right += second;
        left += 1 - second;
        const size_t first = left_end->score < right_end->score;
        *end-- = *(first ? left_end : right_end);
        left_end -= first;
        right_end -= 1 - first;
    }
}

static void merge(const Entry *left, const Entry *middle, const Entry *end, Entry *to)
{
    const Entry *right = middle;
    while (left < middle && right < end)
        *to++ = left->score < right->score ? *right++ : *left++;
    memcpy(to, left, (size_t)(middle - left) * sizeof *to);
    memcpy(to + (middle - left), right, (size_t)(end - right) * sizeof *to);
}

static int by_id(const void *a, const void *b)
{
    const int64_t x = ((const Entry *)a)->id, y = ((const Entry *)b)->id;
    return (x > y) - (x < y);
}

/* Equal scores by id: there are few, or all of them are. */
static void settle_ties(Entry *e, size_t n)
{
    for (size_t first = 0, i = 1; i <= n; i++)
        if (i == n || e[i].score != e[first].score) {
            if (i - first > 1)
                qsort(e + first, i - first, sizeof *e, by_id);
            first = i;
        }
}

static size_t sort_room(size_t n) { return (n + SHORT - 1) / SHORT * SHORT; }

/* Sort best first; there is room for `sort_room` entries here and as many beside. */
static Entry *sort_entries(Entry *from, size_t n, Entry *to)
{
    const size_t all = sort_room(n);
    for (size_t i = n; i < all; i++)
        from[i] = (Entry){-INFINITY, INT64_MAX};
    for (size_t first = 0; first < all; first += SHORT)
        sort_short(from + first, to + first);
    for (size_t run = SHORT; run < all; run *= 2) {
        Entry *swapped = from;
        from = to;
        to = swapped;
        size_t first = 0;
        for (; first + 2 * run <= all; first += 2 * run)
            merge_even(from + first, run, to + first);
        if (first < all)
            merge(from + first, from + (first + run < all ? first + run : all), from + all, to + first);
    }
    settle_ties(to, n);
    return to;
}

/* Write the k best of n entries in any order; pads with nobody.  There is room for 2 sort_room(n) entries. */
static void write_answer(const Search *search, size_t q, Entry *entries, size_t n)
{
    const size_t k = search->k;
    float *similarities = search->similarities + q * k;
    int64_t *ids = search->ids + q * k;
    const Entry *sorted = n > 1 ? sort_entries(entries, n, entries + sort_room(n)) : entries;
    if (n > k)
        n = k;
    for (size_t i = 0; i < n; i++) {
        similarities[i] = (float)sorted[i].score;
        ids[i] = sorted[i].id;
    }
    for (size_t i = n; i < k; i++) {
        similarities[i] = -INFINITY;
        ids[i] = -1;
    }
    if (search->scores)
        for (size_t i = 0; i < k; i++)
            search->scores[q * k + i] = i < n ? sorted[i].score : -INFINITY;
}

enum { DIRECT_PROBES = 12, DIRECT_ROWS = 4 * BLOCK, DIRECT_SCORES = 1 << 21 };

/* What a thread works with that compares rows directly. */
typedef struct {
    Entry *heaps;   /* one per probe, of `room` entries: what it ever holds, and as many to sort them */
    size_t room;
    double *wide;   /* probes in float64, zeros up to a multiple of 8 */
    double *exact;  /* scores of DIRECT_ROWS rows per probe */
    float *scores;  /* of all rows per probe */
    const float **found; /* rows that are scored in float64 */
    float *peaks;   /* of groups of rows */
    uint32_t *masks;
    float guess;    /* where the last probe's k-th best was */
} Direct;

/* Not a power of two: else all probes would meet in the same few places of the cache. */
static size_t wide_stride(size_t dimension) { return facedex_padded(dimension) + 8; }
static size_t score_stride(const Job *job) { return job->n_blocks * BLOCK + 16; }

/* Copy a probe in float64 and check its length by the way. */
static void widen_probe(Job *job, size_t q, double *wide)
{
    const size_t D = job->search->dimension;
    const float *probe = job->search->probes + q * D;
    const double square = job->search->kernel->widen(probe, D, wide);
    if (!(fabs(square - 1.0) <= 2 * UNIT_TOLERANCE - 1e-9) && !is_unit(probe, D))
        note_bad(job, q);
}

/* Score every row in float64: for galleries hardly larger than k. */
static void answer_in_float64(Job *job, size_t q0, size_t q1, Direct *mine)
{
    const Search *search = job->search;
    const size_t D = search->dimension, k = search->k, n = q1 - q0, stride = wide_stride(D);
    size_t filled[DIRECT_PROBES] = {0};
    for (size_t q = 0; q < n; q++)
        widen_probe(job, q0 + q, mine->wide + q * stride);
    for (size_t s = 0; s < search->n_segments; s++) {
        const Segment *segment = search->segments + s;
        for (size_t first = 0; first < segment->n; first += DIRECT_ROWS) {
            const size_t rows = segment->n - first < DIRECT_ROWS ? segment->n - first : DIRECT_ROWS;
            search->kernel->dots(segment->rows + first * D, rows, D, mine->wide, stride, n, mine->exact);
            for (size_t r = 0; r < rows; r += BLOCK) {
                const uint32_t live = live_rows(segment, (first + r) / BLOCK);
                for (size_t q = 0; q < n; q++) {
                    Entry *heap = mine->heaps + q * mine->room;
                    const double *scores = mine->exact + q * rows + r;
                    for (uint32_t m = live; m; m &= m - 1) {
                        const uint32_t i = lowest_bit(m);
                        if (k >= job->n_rows) /* all of them are wanted */
                            heap[filled[q]++] = (Entry){scores[i], segment->ids[first + r + i]};
                        else if (filled[q] < k || scores[i] >= heap[0].score)
                            collect(heap, &filled[q], k, (Entry){scores[i], segment->ids[first + r + i]});
                    }
                }
            }
        }
    }
    for (size_t q = 0; q < n; q++)
        write_answer(search, q0 + q, mine->heaps + q * mine->room, filled[q]);
}

/* Put rows of a block out of the running, for n probes. */
static void exclude(float *scores, size_t stride, size_t n, uint32_t rows)
{
    uint32_t keep[BLOCK], instead[BLOCK], bits[BLOCK];
    for (uint32_t r = 0; r < BLOCK; r++) {
        keep[r] = (rows >> r & 1) - 1;
        instead[r] = to_bits(-INFINITY) & ~keep[r];
    }
    for (size_t q = 0; q < n; q++, scores += stride) {
        memcpy(bits, scores, sizeof bits);
        for (int r = 0; r < BLOCK; r++)
            bits[r] = (bits[r] & keep[r]) | instead[r];
        memcpy(scores, bits, sizeof bits);
    }
}

/* out[8 b + i] = the largest of 4 values of block b; rounded up to whole blocks. Returns how many blocks came of it. */
static size_t peaks(const float *values, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, values += BLOCK, out += 8)
        for (int i = 0; i < 8; i++) {
            const float x = values[i] > values[i + 8] ? values[i] : values[i + 8];
            const float y = values[i + 16] > values[i + 24] ? values[i + 16] : values[i + 24];
            out[i] = x > y ? x : y;
        }
    for (size_t b = n_blocks; b % 4; b++, out += 8)
        for (int i = 0; i < 8; i++)
            out[i] = -INFINITY;
    return (n_blocks + 3) / 4;
}

/* A value that at least k of the scores reach, and few more; any such value is right.  Looked for among the peaks of
 * groups, as long as there are many more groups than k: different groups are different rows. */
static float find_reach(const Job *job, const float *scores, size_t k, Direct *mine)
{
    enum { FEW = 3 };
    if (k == 1)
        return job->search->kernel->largest(scores, job->n_blocks);
    float *room[2] = {mine->peaks, mine->peaks + (job->n_blocks + 3) / 4 * BLOCK};
    const float *values = scores;
    size_t n = job->n_blocks;
    for (int level = 0; n > 1 && FEW * k <= n * 8; level++) {
        n = peaks(values, n, room[level % 2]);
        values = room[level % 2];
    }
    const float start = -1.5f;
    float low = start, high = 1.5f, step = 0.03f, at = mine->guess;
    for (int turn = 0; turn < 30 && low < high; turn++) {
        const size_t count = job->search->kernel->reach(values, n, at, mine->masks);
        if (count >= k) {
            low = at;
            if (count <= k + k / 8)
                break;
        } else
            high = at;
        if (low > start && high < 1.5f)
            at = low + (high - low) * 0.5f;
        else {
            at += low > start ? step : -step;
            step *= 2;
            at = at < start ? start : at > 1.5f ? 1.5f : at;
        }
    }
    mine->guess = low;
    return low;
}

/* Score the rows found; those that come next are asked for meanwhile. */
static void score_rows(const Search *search, const Direct *mine, size_t n)
{
    const size_t D = search->dimension;
    double scores[GATHER];
    for (size_t i = 0; i < n; i += GATHER) {
        const size_t here = n - i < GATHER ? n - i : GATHER;
        for (size_t j = i + GATHER; j < n && j < i + 2 * GATHER; j++)
            for (size_t d = 0; d < D; d += 16)
                PREFETCH(mine->found[j] + d);
        search->kernel->dot_gather(mine->found + i, here, D, mine->wide, scores);
        for (size_t j = 0; j < here; j++)
            mine->heaps[i + j].score = scores[j];
    }
}

/* Score every row in float32, and in float64 whoever can be among the k best: rounding of a sum of D products moves it
 * by at most D u / (1 - D u) times the lengths (Higham 2002, section 3.1), whatever the order and with fused products
 * too.  If k rows reach t in float32, the k-th best is at least t - error, and so whoever is as good has t - 2 error. */
static void answer_in_float32(Job *job, size_t q0, size_t q1, Direct *mine)
{
    const Search *search = job->search;
    const size_t D = search->dimension, k = search->k, n = q1 - q0, stride = score_stride(job);
    const double unit = (double)D / 16777216;
    /* lengths within the tolerance; and room for float64 and for the rounding of the cut itself */
    const float margin = (float)(2 * 1.01 * unit / (1 - unit) * (1 + 3 * UNIT_TOLERANCE) + 1e-6);
    size_t passing = 0, block = 0;
    const float *probes = search->probes + q0 * D;
    for (size_t q = 0; q < n; q++)
        if (!is_unit_fast(search->kernel, probes + q * D, D)) {
            note_bad(job, q0 + q);
            return;
        }
    for (size_t s = 0; s < search->n_segments; s++) {
        const Segment *segment = search->segments + s;
        float *scores = mine->scores + block * BLOCK;
        search->kernel->products(segment->rows, segment->n, D, probes, D, n, scores, stride);
        for (size_t b = 0; b < blocks_of(segment); b++, block++) {
            const uint32_t live = live_rows(segment, b);
            passing += bits_in(live);
            if (live != UINT32_MAX)
                exclude(scores + b * BLOCK, stride, n, ~live);
        }
    }
    uint64_t rescored = 0;
    for (size_t q = 0; q < n; q++) {
        const float *scores = mine->scores + q * stride;
        const float cut = passing > k ? find_reach(job, scores, k, mine) - margin : -2;
        const size_t found = search->kernel->reach(scores, job->n_blocks, cut, mine->masks);
        const int widened = found > 3;
        rescored += found;
        if (widened)
            search->kernel->widen(probes + q * D, D, mine->wide);
        size_t filled = 0;
        block = 0;
        for (size_t s = 0; s < search->n_segments; s++) {
            const Segment *segment = search->segments + s;
            for (size_t b = 0; b < blocks_of(segment); b++, block++)
                for (uint32_t m = mine->masks[block]; m; m &= m - 1) {
                    const size_t row = b * BLOCK + lowest_bit(m);
                    mine->heaps[filled].id = segment->ids[row];
                    mine->found[filled++] = segment->rows + row * D;
                }
        }
        if (widened)
            score_rows(search, mine, filled);
        else
            for (size_t i = 0; i < filled; i++)
                mine->heaps[i].score = search->kernel->dot32(mine->found[i], probes + q * D, D);
        write_answer(search, q0 + q, mine->heaps, filled);
    }
    ADD(&job->rescored, rescored);
}

/* Probes a thread takes at once: in float32 so many that a panel of rows is worth its transposition and their scores
 * stay near, in float64 so few that they stay in the nearest cache; and all threads about as many. */
static size_t direct_group(const Job *job, int threads)
{
    const size_t n = job->search->n_probes;
    size_t most = job->search->dimension > 256 ? DIRECT_PROBES / 2 : DIRECT_PROBES;
    if (job->way == FLOAT32) {
        const size_t near = DIRECT_SCORES / (job->n_blocks * BLOCK);
        most = near < 48 ? 48 : near < 192 ? near : 192;
    }
    const size_t shares = (size_t)threads * ((n + (size_t)threads * most - 1) / ((size_t)threads * most));
    return shares ? (n + shares - 1) / shares : 1;
}

static void answer_directly(Job *job)
{
    const Search *search = job->search;
    const size_t D = search->dimension, wide = wide_stride(D), blocks = job->way == FLOAT32 ? job->n_blocks : 0;
    size_t probes = job->group;
    const size_t heaps = job->way == FLOAT32 ? 1 : probes;
    Direct mine = {.guess = 0.3f};
    /* k may far exceed the rows there are; with many ties, all rows are rescored */
    mine.room = 2 * sort_room(job->way == FLOAT64 && search->k < job->n_rows ? search->k : job->n_rows);
    uint8_t *memory = NULL, *block = NULL;
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        mine.heaps = take(memory, &at, heaps * mine.room * sizeof *mine.heaps);
        mine.wide = take(memory, &at, heaps * wide * sizeof *mine.wide);
        mine.exact = take(memory, &at, job->way == FLOAT64 ? heaps * DIRECT_ROWS * sizeof *mine.exact : 0);
        mine.scores = take(memory, &at, blocks ? probes * score_stride(job) * sizeof *mine.scores : 0);
        mine.found = take(memory, &at, blocks ? job->n_rows * sizeof *mine.found : 0);
        mine.peaks = take(memory, &at, ((blocks + 3) / 4 + (blocks + 15) / 16) * BLOCK * sizeof *mine.peaks);
        mine.masks = take(memory, &at, blocks * sizeof *mine.masks);
        if (pass == 0) {
            block = malloc(at + 64);
            if (!block) {
                STORE(&job->failed, 1);
                return;
            }
            memory = block + (64 - (uintptr_t)block % 64);
        }
    }
    for (size_t q; !LOAD(&job->failed) && (q = probes * ADD(&job->next, 1)) < search->n_probes;) {
        const size_t end = q + probes < search->n_probes ? q + probes : search->n_probes;
        if (job->way == FLOAT32)
            answer_in_float32(job, q, end, &mine);
        else
            answer_in_float64(job, q, end, &mine);
        if (LOAD(&job->bad) < search->n_probes)
            break; /* other threads finish theirs: an earlier one may be worse */
    }
    free(block);
}

static void finish_probe(Job *job, size_t q, Entry *heap, double *probe)
{
    const Search *search = job->search;
    const size_t D = search->dimension, k = search->k;
    size_t n = 0;
    uint64_t rescored = 0;
    search->kernel->widen(search->probes + q * D, D, probe);
    List *merged = job->lists + q; /* of the first thread */
    for (int t = 1; t < job->threads; t++) {
        const List *other = job->lists + (size_t)t * search->n_probes + q;
        for (size_t i = 0; i < other->n_best; i++)
            if (!offer(merged, k, other->best[i])) {
                STORE(&job->failed, 1);
                return;
            }
    }
    const float tau = merged->n_best == k ? merged->best[0] : -INFINITY;
    for (int t = 0; t < job->threads; t++) {
        List *list = job->lists + (size_t)t * search->n_probes + q;
        size_t kept = 0;
        for (size_t i = 0; i < list->n; i++)
            if (list->items[i].upper >= tau)
                list->items[kept++] = list->items[i];
        rescored += kept;
        for (size_t i = 0; i < kept; i++) {
            enum { AHEAD = 4 };
            if (i + AHEAD < kept) {
                const Candidate *c = list->items + i + AHEAD;
                const float *row = search->segments[c->segment].rows + (size_t)c->row * D;
                for (size_t d = 0; d < D; d += 16)
                    PREFETCH(row + d);
            }
            const Candidate *c = list->items + i;
            const Segment *segment = search->segments + c->segment;
            const double score = search->kernel->dot(segment->rows + (size_t)c->row * D, probe, D);
            collect(heap, &n, k, (Entry){score, segment->ids[c->row]});
        }
    }
    ADD(&job->rescored, rescored);
    write_answer(search, q, heap, n);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void work(Job *job, int thread)
{
    const Search *search = job->search;
    if (job->way != CODES) {
        answer_directly(job);
        return;
    }
    if (job->finishing) {
        const size_t room = 2 * sort_room(search->k < job->n_rows ? search->k : job->n_rows);
        Entry *heap = malloc(room * sizeof *heap + 1);
        double *probe = malloc(facedex_padded(search->dimension) * sizeof *probe);
        if (!heap || !probe)
            STORE(&job->failed, 1);
        for (size_t q; !LOAD(&job->failed) && (q = ADD(&job->next, 1)) < search->n_probes;)
            finish_probe(job, q, heap, probe);
        free(heap);
        free(probe);
        return;
    }
    uint8_t *scratch = NULL;
    Group group;
    if (search->n_probes > 3) {
        scratch = malloc(64 + lay_out_group(&group, NULL, job->probes.padded, job->group));
        if (!scratch) {
            STORE(&job->failed, 1);
            return;
        }
        lay_out_group(&group, scratch + (64 - (uintptr_t)scratch % 64), job->probes.padded, job->group);
    }
    const size_t items = job->n_groups * job->n_spans;
    for (size_t item; (item = ADD(&job->next, 1)) < items && !LOAD(&job->failed);)
        scan_item(job, thread, item, scratch ? &group : NULL);
    free(scratch);
}

#ifdef FACEDEX_THREADS
typedef struct {
    Job *job;
    int thread;
} Helper;

static void *help(void *argument)
{
    Helper *helper = argument;
    work(helper->job, helper->thread);
    return NULL;
}
#endif

/* Threads live for one phase of one search: 10 microseconds each, asked only when they save more; nothing idles,
 * nothing breaks in a forked child. */
static void run(Job *job, int threads)
{
    job->next = 0;
#ifdef FACEDEX_THREADS
    enum { MOST = 256 };
    pthread_t handles[MOST];
    Helper helpers[MOST];
    int started = 0;
    for (int t = 1; t < threads && t < MOST; t++) {
        helpers[started] = (Helper){job, t};
        if (pthread_create(&handles[started], NULL, help, &helpers[started]) != 0)
            break; /* fewer threads do the same work */
        started++;
    }
    work(job, 0);
    for (int t = 0; t < started; t++)
        pthread_join(handles[t], NULL);
#else
    (void)threads;
    work(job, 0);
#endif
}

/* ---- a search ---------------------------------------------------------------------------------------------------- */

/* One block of memory for everything about the probes. */
static size_t lay_out(Probes *p, uint8_t *memory, size_t n, size_t segments)
{
    size_t at = 0;
    p->codes = take(memory, &at, n * p->padded);
    p->fine = take(memory, &at, n * p->padded * 2);
    p->init = take(memory, &at, n * p->chunks * 4);
    p->total = take(memory, &at, n * 4);
    p->coarse = take(memory, &at, n * sizeof(Coding));
    p->exact = take(memory, &at, n * sizeof(Coding));
    p->fine_sum = take(memory, &at, n * 8);
    p->length = take(memory, &at, n * 4);
    p->mean_part = take(memory, &at, n * segments * 4);
    p->tau = take(memory, &at, n * 4);
    return at;
}

static Status prepare(Job *job, float *rotated, float *signs, size_t *bad)
{
    Search *search = job->search;
    Probes *p = &job->probes;
    const size_t D = search->dimension, n = search->n_probes;
    double lane_limit[2 * (MAX_DIMENSION / 4 / CHUNK_GROUPS)];
    for (size_t l = 0; l < 2 * p->chunks; l++) {
        /* largest |probe lane| such that |code lane| * |probe lane| stays in int16 */
        double square = 7.5 * 7.5 * 2 * CHUNK_GROUPS;
        if (p->bits == 8) {
            square = 1;
            for (size_t s = 0; s < search->n_segments; s++)
                if (search->segments[s].stats[STAT_LANES + l] > square)
                    square = search->segments[s].stats[STAT_LANES + l];
        }
        lane_limit[l] = 32700 / sqrt(square);
    }
    facedex_signs(D, signs);
    for (size_t q = 0; q < n; q++) {
        if (!is_unit_fast(search->kernel, search->probes + q * D, D)) {
            *bad = q;
            return BAD_VECTOR;
        }
        facedex_rotate(search->probes + q * D, D, signs, rotated);
        code_probe(search->kernel, rotated, p, p->bits, lane_limit, p->codes + q * p->padded, p->init + q * p->chunks,
                   p->total + q, p->coarse + q);
        p->fine_sum[q] = code_probe_fine(rotated, p->padded, p->fine + q * p->padded, p->exact + q);
        float square = 0;
        for (size_t d = 0; d < p->padded; d++)
            square += rotated[d] * rotated[d];
        p->length[q] = length_above(square);
        for (size_t s = 0; s < search->n_segments; s++) {
            const float *mean = search->segments[s].mean;
            if (s && mean == search->segments[s - 1].mean)
                p->mean_part[s * n + q] = p->mean_part[(s - 1) * n + q];
            else {
                double sum[4] = {0};
                for (size_t d = 0; d < p->padded; d += 4)
                    for (size_t i = 0; i < 4; i++)
                        sum[i] += (double)mean[d + i] * rotated[d + i];
                p->mean_part[s * n + q] = (float)((sum[0] + sum[1]) + (sum[2] + sum[3]));
            }
        }
        p->tau[q] = to_bits(-INFINITY);
    }
    return OK;
}

Status facedex_search(Search *search, size_t *bad)
{
    Job job = {.search = search, .threads = 1, .bad = SIZE_MAX};
    const size_t D = search->dimension, n = search->n_probes;
    for (size_t s = 0; s < search->n_segments; s++) {
        job.n_rows += search->segments[s].n;
        job.n_blocks += blocks_of(search->segments + s);
    }
    const size_t n_blocks = job.n_blocks;
    const double products = (double)job.n_rows * (double)D * (double)n;
    if (!search->codes_only) {
        /* measured: the more are asked for, the more rows codes let through for a second look; the fewer the probes,
         * the less float32 products get out of a row */
        const size_t each = n < 8 ? 30 : n < 16 ? 90 : 107 + 22000 / D, base = n < 16 ? 1000 : 800 + 115000 / D;
        const size_t most = base + each * (search->k < 120 ? search->k : 120);
        if (job.n_rows <= search->k + search->k / 4 + 4)
            job.way = FLOAT64;
        else if (job.n_rows <= most && job.n_rows * D <= MOST_DIRECT)
            job.way = FLOAT32;
    }
    /* roughly how long one thread takes, in microseconds, at 16 products a ns in float64, 40 in float32, 60 in codes */
    double cost = products / (job.way == FLOAT64 ? 16e3 : job.way == FLOAT32 ? 40e3 : 60e3);
    if (job.way != CODES) { /* tiny galleries: preparing a probe and sorting its answer take longer than the products */
        const size_t answers = search->k < job.n_rows ? search->k : job.n_rows;
        cost += (double)n * (0.02 + 3e-4 * (double)D + 0.03 * (double)answers);
    }
    int threads = search->threads;
    if (cost / threads < 60) /* what two more threads cost at their slowest */
        threads = 1;

    Probes *p = &job.probes;
    p->padded = facedex_padded(D);
    p->groups = p->padded / 4;
    p->chunks = facedex_chunks(D);
    p->bits = n < 24 ? 4 : 8;
    Status status = OK;
    uint8_t *memory = NULL, *lists = NULL;
    if (job.way == CODES) {
        const size_t bytes = lay_out(p, NULL, n, search->n_segments);
        job.threads = threads;
        const size_t n_lists = (size_t)threads * n, best = search->k < 64 ? search->k : 64, items = 32 + best;
        const size_t list_bytes = items * sizeof(Candidate) + (best * sizeof(float) + 15) / 16 * 16;
        job.lists = calloc(n_lists, sizeof *job.lists);
        lists = malloc(n_lists * list_bytes);
        memory = malloc(bytes + 64 + (p->padded + 2 * D) * sizeof(float));
        if (!job.lists || !lists || !memory) {
            status = NO_MEMORY;
            goto done;
        }
        for (size_t i = 0; i < n_lists; i++)
            job.lists[i] = (List){.items = (Candidate *)(lists + i * list_bytes), .room = items, .best_room = best,
                                  .best = (float *)(lists + i * list_bytes + items * sizeof(Candidate))};
        uint8_t *aligned = memory + (64 - (uintptr_t)memory % 64);
        lay_out(p, aligned, n, search->n_segments);
        float *rotated = (float *)(aligned + bytes);
        status = prepare(&job, rotated, rotated + p->padded, bad);
        if (status != OK)
            goto done;
        if (n <= 3 || n < 64 * (size_t)threads) { /* few probes: threads share the rows */
            job.group = n;
            job.span = threads > 1 ? n_blocks / (size_t)(threads * 8) + 1 : n_blocks;
        } else { /* many: threads share the probes */
            const size_t per_thread = (n + (size_t)threads - 1) / (size_t)threads;
            const size_t most = p->padded <= 256 ? 512 : 256; /* their codes stay in the second cache */
            job.group = per_thread <= most ? per_thread : per_thread / ((per_thread + most - 1) / most) + 1;
            job.span = n_blocks;
        }
        job.n_groups = (n + job.group - 1) / job.group;
        job.n_spans = (n_blocks + job.span - 1) / job.span;
        run(&job, threads);
    }
    else
        job.group = direct_group(&job, threads);
    if (!job.failed) {
        job.finishing = 1;
        run(&job, job.way == CODES && n < 16 ? 1 : threads);
    }
    if (job.bad < n) {
        *bad = job.bad;
        status = BAD_VECTOR;
    }
    search->counts[0] = job.refined;
    search->counts[1] = job.rescored;
    if (job.failed)
        status = NO_MEMORY;
done:
    if (job.lists)
        for (size_t i = 0; i < (size_t)job.threads * n; i++) {
            if (job.lists[i].own_items)
                free(job.lists[i].items);
            if (job.lists[i].own_best)
                free(job.lists[i].best);
        }
    free(job.lists);
    free(lists);
    free(memory);
    return status;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* The sum over all 64-bit words of a mix of word and position: every step is a bijection, so one changed word always
 * shows; and the words are independent, so that NumPy can do the same (codes.py). */
uint64_t facedex_checksum(const uint8_t *bytes, size_t n)
{
    uint64_t sum = n, position = 0;
    for (size_t i = 0; i < n; i += 8, position += UINT64_C(0x9e3779b97f4a7c15)) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, n - i < 8 ? n - i : 8);
        word = (word ^ position) * UINT64_C(0xbf58476d1ce4e5b9);
        word ^= word >> 32;
        sum += word * UINT64_C(0x94d049bb133111eb);
    }
    return sum;
}

/* ---- dispatch ---------------------------------------------------------------------------------------------------- */

static int runs(const Kernel *kernel)
{
#if defined(FACEDEX_HAVE_AVX2)
    if (kernel == &facedex_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (kernel == &facedex_avx512vnni) {
#ifdef FACEDEX_EMULATE
        return 1;
#else
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    }
#endif
    (void)kernel;
    return 1;
}

const Kernel *const *facedex_kernels(void)
{
    static const Kernel *const all[] = {
#if defined(FACEDEX_HAVE_AVX512VNNI) && !defined(FACEDEX_EMULATE)
        &facedex_avx512vnni,
#endif
#ifdef FACEDEX_HAVE_AVX2
        &facedex_avx2,
#endif
#if defined(FACEDEX_HAVE_AVX512VNNI) && defined(FACEDEX_EMULATE)
        &facedex_avx512vnni,
#endif
#ifdef FACEDEX_HAVE_NEON
        &facedex_neon,
#endif
        &facedex_portable, NULL,
    };
    return all;
}

const Kernel *facedex_kernel(const char *name)
{
    for (const Kernel *const *k = facedex_kernels(); *k; k++)
        if ((!name || strcmp(name, (*k)->name) == 0) && runs(*k))
            return *k;
    return NULL;
}
