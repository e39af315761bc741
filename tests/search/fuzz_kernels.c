/* Fuzz driver: random shapes and adversarial rows, every kernel against plain float64, buffers of exactly the needed
 * size so that a sanitizer sees one byte too many.   usage: fuzz_kernels [rounds] [seed] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

static uint64_t state;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static size_t below(size_t n) { return (size_t)(draw() % n); }

static double gauss(void)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)(draw() >> 11) / 9007199254740992.0;
    return sum;
}

static void unit(float *x, size_t D)
{
    double sum = 0;
    for (size_t d = 0; d < D; d++)
        sum += (double)x[d] * x[d];
    if (sum < 1e-12) {
        memset(x, 0, D * sizeof *x);
        x[below(D)] = 1;
        return;
    }
    for (size_t d = 0; d < D; d++)
        x[d] = (float)(x[d] / sqrt(sum));
}

static void make_row(float *x, size_t D, const float *earlier, size_t n, int kind)
{
    memset(x, 0, D * sizeof *x);
    switch (n ? kind : 0) {
    case 0: case 1: /* anywhere */
        for (size_t d = 0; d < D; d++)
            x[d] = (float)gauss();
        break;
    case 2: /* one axis */
        x[below(D)] = draw() & 1 ? 1.0f : -1.0f;
        break;
    case 3: /* a copy */
        memcpy(x, earlier + below(n) * D, D * sizeof *x);
        return;
    case 4: /* a copy but for the last bit */
        memcpy(x, earlier + below(n) * D, D * sizeof *x);
        x[below(D)] *= 1.0000001f;
        return;
    case 5: /* the opposite */
        for (size_t d = 0, from = below(n); d < D; d++)
            x[d] = -earlier[from * D + d];
        return;
    default: /* all equal, signs at random: flat before or after rotation */
        for (size_t d = 0; d < D; d++)
            x[d] = draw() & 1 ? 1.0f : -1.0f;
    }
    unit(x, D);
}

static void check_scans(const Kernel *kernel)
{
    const size_t groups = 2 * (1 + below(70)), P = 1 + below(19), Dp = groups * 4, chunks = (groups + 31) / 32;
    const size_t n_blocks = 1 + below(3);
    uint8_t *packed = malloc(n_blocks * groups * 64), *block = malloc(groups * 128), *mine = malloc(groups * 128);
    int8_t *probes = malloc(P * Dp);
    int32_t *init = malloc(P * chunks * 4), *total = calloc(P, 4), *thr = malloc((P + n_blocks) * 4);
    uint32_t *a = malloc((P + n_blocks) * 4), *b = malloc((P + n_blocks) * 4);
    for (int bits = 4; bits <= 8; bits += 4) {
        for (size_t i = 0; i < n_blocks * groups * 64; i++)
            packed[i] = (uint8_t)draw();
        if (bits == 4) {
            kernel->unpack4(packed, groups, mine);
            facedex_unpack4_portable(packed, groups, block);
        } else {
            uint8_t *codes = malloc(BLOCK * Dp);
            for (size_t i = 0; i < BLOCK * Dp; i++)
                codes[i] = (uint8_t)(112 + draw() % 32);
            kernel->unpack8(codes, groups, mine);
            facedex_unpack8_portable(codes, groups, block);
            free(codes);
        }
        if (memcmp(block, mine, groups * 128) != 0)
            printf("%s: unpack%d differs\n", kernel->name, bits), exit(1);
        /* small enough that the centred sums of a chunk fit int16, as the engine makes sure of */
        for (size_t i = 0; i < P * Dp; i++)
            probes[i] = (int8_t)((int)(draw() % 61) - 30);
        for (size_t q = 0; q < P; q++) {
            total[q] = 0;
            for (size_t c = 0; c < chunks; c++) {
                int32_t lane[2] = {0, 0};
                for (size_t g = 32 * c; g < groups && g < 32 * (c + 1); g++)
                    for (int i = 0; i < 4; i++)
                        lane[i / 2] += probes[q * Dp + 4 * g + i] * (bits == 4 ? 8 : 128);
                init[q * chunks + c] = (int32_t)((uint32_t)(uint16_t)-lane[0] | (uint32_t)(uint16_t)-lane[1] << 16);
                total[q] -= lane[0] + lane[1];
            }
            thr[q] = (int32_t)(draw() % 4001) - 2000;
        }
        kernel->scan8(block, groups, P, probes, Dp, init, chunks, total, thr, a, NULL);
        facedex_portable.scan8(block, groups, P, probes, Dp, init, chunks, total, thr, b, NULL);
        if (memcmp(a, b, P * 4) != 0)
            printf("%s: scan8 differs, %zu groups, %zu probes, %d bits\n", kernel->name, groups, P, bits), exit(1);
        int32_t *scores = malloc(2 * P * BLOCK * 4);
        kernel->scan8(block, groups, P, probes, Dp, init, chunks, total, NULL, NULL, scores);
        facedex_portable.scan8(block, groups, P, probes, Dp, init, chunks, total, NULL, NULL, scores + P * BLOCK);
        if (memcmp(scores, scores + P * BLOCK, P * BLOCK * 4) != 0)
            printf("%s: scores of scan8 differ\n", kernel->name), exit(1);
        free(scores);
        if (bits == 4) {
            for (size_t i = 0; i < n_blocks; i++)
                thr[i] = (int32_t)(draw() % 4001) - 2000;
            kernel->scan4(packed, n_blocks, groups, probes, init, total[0], thr, a);
            facedex_portable.scan4(packed, n_blocks, groups, probes, init, total[0], thr, b);
            if (memcmp(a, b, n_blocks * 4) != 0)
                printf("%s: scan4 differs, %zu groups\n", kernel->name, groups), exit(1);
        }
    }
    int16_t *fine = malloc(Dp * 2);
    for (size_t d = 0; d < Dp; d++)
        fine[d] = (int16_t)((int)(draw() % 30001) - 15000);
    if (kernel->refine(block, fine, Dp) != facedex_refine_portable(block, fine, Dp))
        printf("%s: refine differs\n", kernel->name), exit(1);
    free(packed), free(block), free(mine), free(probes), free(init), free(total), free(thr), free(a), free(b), free(fine);
}

static void check_products(const Kernel *kernel)
{
    const size_t D = 1 + below(draw() % 8 ? 70 : 600), n = 1 + below(70), P = 1 + below(40), apart = D + below(9);
    const size_t blocks = (n + BLOCK - 1) / BLOCK, stride = blocks * BLOCK + below(20);
    float *rows = malloc(n * D * 4), *probes = malloc(((P - 1) * apart + D) * 4);
    float *out = malloc(((P - 1) * stride + blocks * BLOCK) * 4);
    uint32_t *masks = malloc(blocks * 4), *expected = malloc(blocks * 4);
    for (size_t i = 0; i < n * D; i++)
        rows[i] = (float)gauss();
    for (size_t i = 0; i < (P - 1) * apart + D; i++)
        probes[i] = (float)gauss();
    kernel->products(rows, n, D, probes, apart, P, out, stride);
    for (size_t q = 0; q < P; q++) {
        const float *probe = probes + q * apart;
        for (size_t r = 0; r < n; r++) {
            double sum = 0, size = 0;
            for (size_t d = 0; d < D; d++) {
                sum += (double)rows[r * D + d] * probe[d];
                size += fabs((double)rows[r * D + d] * probe[d]);
            }
            if (!(fabs(out[q * stride + r] - sum) <= 1.01 * (double)D / 16777216 * size))
                printf("%s: product off by more than its bound, D %zu\n", kernel->name, D), exit(1);
            if (kernel->dot32(rows + r * D, probe, D) != facedex_dot32_portable(rows + r * D, probe, D))
                printf("%s: dot32 differs, D %zu\n", kernel->name, D), exit(1);
        }
        for (size_t r = n; r < blocks * BLOCK; r++)
            out[q * stride + r] = -INFINITY;
        const float cut = out[q * stride + below(n)];
        if (kernel->reach(out + q * stride, blocks, cut, masks) !=
                facedex_reach_portable(out + q * stride, blocks, cut, expected) ||
            memcmp(masks, expected, blocks * 4) != 0)
            printf("%s: reach differs\n", kernel->name), exit(1);
        if (kernel->largest(out + q * stride, blocks) != facedex_largest_portable(out + q * stride, blocks))
            printf("%s: largest differs\n", kernel->name), exit(1);
        double *wide = malloc((D + 7) / 8 * 8 * sizeof *wide), scores[GATHER], by_itself[GATHER];
        const double square = kernel->widen(probe, D, wide);
        if (!(fabs(square - facedex_widen_portable(probe, D, wide)) <= 1e-12 * square))
            printf("%s: widen differs, D %zu\n", kernel->name, D), exit(1);
        const float *some[GATHER];
        const size_t gathered = 1 + below(GATHER);
        for (size_t i = 0; i < gathered; i++)
            some[i] = rows + below(n) * D;
        kernel->widen(probe, D, wide);
        kernel->dot_gather(some, gathered, D, wide, scores);
        facedex_dot_gather_portable(some, gathered, D, wide, by_itself);
        if (memcmp(scores, by_itself, gathered * sizeof *scores) != 0)
            printf("%s: dot_gather differs, D %zu\n", kernel->name, D), exit(1);
        free(wide);
    }
    double square = 0;
    for (size_t d = 0; d < D; d++)
        square += (double)rows[d] * rows[d];
    if (!(fabs(kernel->square(rows, D) - square) <= 1.01 * (double)D / 16777216 * square))
        printf("%s: square off by more than its bound, D %zu\n", kernel->name, D), exit(1);
    free(rows), free(probes), free(out), free(masks), free(expected);
}

typedef struct {
    double score;
    int64_t id;
} Found;

static int order(const void *left, const void *right)
{
    const Found *a = left, *b = right;
    if (a->score != b->score)
        return a->score < b->score ? 1 : -1;
    return (a->id > b->id) - (a->id < b->id);
}

static void check_search(const Kernel *kernel)
{
    const size_t dims[] = {1, 2, 3, 7, 8, 31, 32, 100, 128, 129, 192, 260, 512};
    const size_t D = dims[below(13)], n = 1 + below(draw() % 4 ? 300 : 3000), Q = 1 + below(draw() % 3 ? 6 : 260);
    const size_t k = 1 + below(draw() % 4 ? 12 : n + 3), Dp = facedex_padded(D), blocks = (n + BLOCK - 1) / BLOCK;
    const size_t n_stats = STAT_LANES + 2 * facedex_chunks(D);
    float *rows = malloc(n * D * 4), *probes = malloc(Q * D * 4), *mean = calloc(Dp, 4);
    const int kind = (int)below(9);
    for (size_t i = 0; i < n; i++)
        make_row(rows + i * D, D, rows, i, kind < 7 ? kind : (int)below(7));
    for (size_t q = 0; q < Q; q++)
        make_row(probes + q * D, D, rows, n, (int)below(7));
    uint8_t *packed4 = calloc(blocks * Dp, BLOCK / 2), *codes8 = calloc(blocks * Dp, BLOCK);
    float *e4 = calloc(blocks, 4), *e8 = calloc(n, 4);
    double *stats = calloc(n_stats, 8);
    stats[STAT_STEP4] = 0.3352 / sqrt((double)D);
    stats[STAT_STEP8] = 5.5 / 127 / sqrt((double)D);
    uint32_t *live = malloc(blocks * 4), *filter = malloc(blocks * 4);
    int64_t *ids = malloc(n * 8);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int64_t)(n - i) * 3; /* falling, so that ties are not in row order */
    for (size_t b = 0; b < blocks; b++) {
        live[b] = draw() % 3 ? UINT32_MAX : (uint32_t)draw();
        filter[b] = (uint32_t)draw() | (uint32_t)draw();
    }
    size_t bad = 0;
    if (facedex_encode(rows, n / 2, D, 0, mean, packed4, codes8, e4, e8, stats, &bad) != OK ||
        facedex_encode(rows + n / 2 * D, n - n / 2, D, n / 2, mean, packed4, codes8, e4, e8, stats, &bad) != OK)
        printf("encode refused row %zu\n", bad), exit(1);
    Segment segment = {.n = n, .packed4 = packed4, .codes8 = codes8, .e4 = e4, .e8 = e8, .mean = mean, .stats = stats,
                       .rows = rows, .ids = ids, .live = live, .filter = draw() % 2 ? filter : NULL};
    float *similarities = malloc(Q * k * 4);
    int64_t *who = malloc(Q * k * 8);
    double *scores = malloc(Q * k * 8);
    Search search = {.kernel = kernel, .dimension = D, .n_segments = 1, .segments = &segment, .n_probes = Q,
                     .probes = probes, .k = k, .threads = 1 + (int)below(3), .similarities = similarities, .ids = who,
                     .scores = scores, .codes_only = draw() % 3 != 0};
    if (facedex_search(&search, &bad) != OK)
        printf("search refused probe %zu\n", bad), exit(1);
    Found *all = malloc(n * sizeof *all);
    double *wide = malloc(D * 8);
    for (size_t q = 0; q < Q; q++) {
        size_t m = 0;
        for (size_t d = 0; d < D; d++)
            wide[d] = probes[q * D + d];
        for (size_t i = 0; i < n; i++)
            if ((live[i / BLOCK] & (segment.filter ? filter[i / BLOCK] : UINT32_MAX)) >> i % BLOCK & 1)
                all[m++] = (Found){facedex_dot_portable(rows + i * D, wide, D), ids[i]};
        qsort(all, m, sizeof *all, order);
        for (size_t i = 0; i < k; i++) {
            const int64_t id = i < m ? all[i].id : -1;
            const double score = i < m ? all[i].score : -INFINITY;
            if (who[q * k + i] != id || scores[q * k + i] != score || similarities[q * k + i] != (float)score)
                printf("%s: D %zu n %zu Q %zu k %zu kind %d: probe %zu rank %zu is %lld %.17g, not %lld %.17g\n",
                       kernel->name, D, n, Q, k, kind, q, i, (long long)who[q * k + i], scores[q * k + i],
                       (long long)id, score), exit(1);
        }
    }
    free(rows), free(probes), free(mean), free(packed4), free(codes8), free(e4), free(e8), free(stats), free(live);
    free(filter), free(ids), free(similarities), free(who), free(scores), free(all), free(wide);
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? atoi(argv[1]) : 200;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    state = state * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (const Kernel *const *k = facedex_kernels(); *k; k++) {
        if (!facedex_kernel((*k)->name))
            continue;
        for (int i = 0; i < rounds; i++) {
            check_scans(*k);
            check_products(*k);
            check_search(*k);
        }
        printf("%s: %d rounds\n", (*k)->name, rounds);
    }
    return 0;
}
