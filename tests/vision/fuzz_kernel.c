/* The pixel kernel on buffers of exactly their size, under sanitizers: whatever it reads or writes beyond is found.
 *
 * fuzz ROUNDS SEED
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pixels.h"

static uint64_t state;

static uint64_t next(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static ptrdiff_t below(ptrdiff_t most)
{
    return (ptrdiff_t)(next() % (uint64_t)most) + 1;
}

static uint8_t *pixels(ptrdiff_t height, ptrdiff_t width)
{
    uint8_t *image = malloc((size_t)(height * width * 3));
    for (ptrdiff_t i = 0; i < height * width * 3; i++)
        image[i] = (uint8_t)next();
    return image;
}

int main(int count, char **arguments)
{
    const int rounds = count > 1 ? atoi(arguments[1]) : 100;
    state = 88172645463325252u + (uint64_t)(count > 2 ? atoi(arguments[2]) : 1);
    static const double odd[] = {-1e300, -1, -0.9999999, 0, 0.5, 1e9, 1e300, NAN, INFINITY};
    for (int round = 0; round < rounds; round++) {
        const ptrdiff_t height = below(90), width = below(90), high = below(60), wide = below(60), size = below(40);
        uint8_t *image = pixels(height, width), *small = pixels(high, wide), *crop = pixels(size, size);
        const ptrdiff_t factor = below(8);
        if (!facedex_shrink(image, height, width, factor, high, wide, small))
            return 1;
        double *places = malloc((size_t)size * 4 * sizeof *places);
        for (ptrdiff_t i = 0; i < 4 * size; i++)
            places[i] = next() % 8 ? (double)(next() % 12000) / 100 - 10 : odd[next() % (sizeof odd / sizeof *odd)];
        facedex_warp(image, height, width, places, places + size, places + 2 * size, places + 3 * size, size,
                     crop);
        free(places), free(crop), free(small), free(image);
    }
    printf("%d rounds\n", rounds);
    return 0;
}
