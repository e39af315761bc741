/* Encoding rows and searching them; plain C, knows nothing of Python. */
#ifndef FACEDEX_ENGINE_H
#define FACEDEX_ENGINE_H

#include "kernels.h"

/* Where the numbers of a quantizer and of what it coded stand in the float64 array that travels with a segment. */
enum {
    STAT_STEP4,      /* width of a 4-bit step */
    STAT_STEP8,      /* width of an 8-bit step */
    STAT_NORM4,      /* largest length of (c - 7.5) of any row */
    STAT_NORM8,      /* largest length of (c - 128) */
    STAT_LANES       /* from here: largest squared length of (c - 128) per chunk and int16 lane, 2 per chunk */
};

typedef struct {
    size_t n;             /* rows */
    const uint8_t *packed4, *codes8;
    const float *e4, *e8; /* per block, per row */
    const float *mean;    /* Dp floats, of rotated rows */
    const double *stats;
    const float *rows;    /* n x D float32 as enrolled */
    const int64_t *ids;
    const uint32_t *live; /* per block, bit r: row r may be an answer */
    const uint32_t *filter; /* the same, or NULL */
} Segment;

typedef struct {
    const Kernel *kernel;
    size_t dimension;
    size_t n_segments;
    const Segment *segments;
    size_t n_probes;
    const float *probes;  /* n_probes x D */
    size_t k;
    int threads;
    float *similarities;  /* n_probes x k */
    int64_t *ids;         /* n_probes x k */
    double *scores;       /* n_probes x k float64, or NULL */
    int codes_only;       /* for tests: scan codes however small the gallery is */
    uint64_t counts[2];   /* out: rows (scan4) or blocks (scan8) refined, rows scored in float64 */
} Search;

typedef enum { OK = 0, NO_MEMORY = -1, BAD_VECTOR = -2 } Status;

size_t facedex_padded(size_t dimension);  /* Dp: dimension rounded up to whole bytes of two groups */
size_t facedex_chunks(size_t dimension);

/* T x in float32: signs and Walsh-Hadamard transforms, orthogonal up to rounding. out has Dp floats. */
void facedex_rotate(const float *x, size_t dimension, const float *signs, float *out);
void facedex_signs(size_t dimension, float *signs); /* 2 * dimension floats, -1 or 1, the same everywhere */

/* Encode rows[0..n) as rows first..first+n of a segment with room for them.  *bad is the first row that is not finite
 * or not of unit length; nothing has been published then, whatever was written is overwritten later. */
Status facedex_encode(const float *rows, size_t n, size_t dimension, size_t first, const float *mean, uint8_t *packed4,
                      uint8_t *codes8, float *e4, float *e8, double *stats, size_t *bad);

/* The k best rows of all segments for each probe, exactly: similarity descending, then id ascending; missing ones have
 * id -1 and similarity -inf. */
Status facedex_search(Search *search, size_t *bad);

/* A 64-bit checksum of any bytes: detects flips, swaps, truncation; not cryptographic. */
uint64_t facedex_checksum(const uint8_t *bytes, size_t n);

#endif
