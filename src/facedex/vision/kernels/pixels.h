/* RGB bytes in rows without gaps; sides are at least 1, and sizes were checked by the caller. */
#ifndef FACEDEX_PIXELS_H
#define FACEDEX_PIXELS_H

#include <stddef.h>
#include <stdint.h>

void facedex_warp(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, const double *xc, const double *xr,
                  const double *yc, const double *yr, ptrdiff_t size, uint8_t *crop);

/* Reduce by a whole factor, then resample to high × wide; 0 when there is no memory. */
int facedex_shrink(const uint8_t *image, ptrdiff_t height, ptrdiff_t width, ptrdiff_t factor, ptrdiff_t high,
                   ptrdiff_t wide, uint8_t *out);

#endif
