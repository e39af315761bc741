/* What this machine allows, and what the inner loops make of it; compiled and run by limits.py. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine.h"

#ifdef FACEDEX_HAVE_AVX2
#include <immintrin.h>
#endif

enum { MOST = 64, D = 128, PROBES = 256 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    void (*work)(const uint8_t *from, size_t bytes);
    const uint8_t *from;
    size_t bytes;
} Share;

static void *run(void *argument)
{
    const Share *share = argument;
    share->work(share->from, share->bytes);
    return NULL;
}

/* Least seconds of `rounds` in which all threads work on their shares of the bytes. */
static double least(void (*work)(const uint8_t *, size_t), const uint8_t *from, size_t bytes, int threads, int rounds)
{
    double best = 1e9;
    for (int round = 0; round < rounds; round++) {
        pthread_t handles[MOST];
        Share shares[MOST];
        const size_t each = bytes / (size_t)threads / 4096 * 4096;
        const double start = now();
        for (int t = 0; t < threads; t++) {
            shares[t] = (Share){work, from + (size_t)t * each, each};
            if (t)
                pthread_create(&handles[t], NULL, run, &shares[t]);
        }
        run(&shares[0]);
        for (int t = 1; t < threads; t++)
            pthread_join(handles[t], NULL);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static volatile uint64_t sink;

static void read_all(const uint8_t *from, size_t bytes)
{
    uint64_t sum[32] = {0};
    for (const uint64_t *p = (const uint64_t *)from; bytes >= 256; bytes -= 256, p += 32) {
        __builtin_prefetch((const char *)p + 4096);
        __builtin_prefetch((const char *)p + 4160);
        __builtin_prefetch((const char *)p + 4224);
        __builtin_prefetch((const char *)p + 4288);
        for (int i = 0; i < 32; i++)
            sum[i] += p[i];
    }
    for (int i = 0; i < 32; i++)
        sink += sum[i];
}

static const Kernel *kernel;
static uint8_t *block, *packed;
static int8_t *probes;
static int32_t zeros[PROBES], high[PROBES];
static uint32_t masks[PROBES];
enum { REPEAT = 400, BLOCKS = 256 };

/* One block, 256 probes, all in the nearest caches: the inner loop of a batch with all around it left out. */
static void scan_batch(const uint8_t *from, size_t bytes)
{
    (void)from, (void)bytes;
    uint32_t mine[PROBES];
    for (int i = 0; i < REPEAT; i++)
        kernel->scan8(block, D / 4, PROBES, probes, D, zeros, 1, zeros, high, mine, NULL);
}

static void scan_one(const uint8_t *from, size_t bytes)
{
    (void)from, (void)bytes;
    for (int i = 0; i < REPEAT; i++)
        kernel->scan4(packed, BLOCKS, D / 4, probes, zeros, 0, high, masks);
}

/* The products alone: operands in registers, nothing loaded, nothing compared.  A product of all registers stands for
 * 256 or 128 pairs of 8-bit values. */
enum { PRODUCTS = 4000000 };
#ifdef FACEDEX_HAVE_AVX2
#define PAIR(sum, product)                                                                                             \
    "vpmaddubsw %%ymm15, %%ymm14, %%ymm" #product "\n vpaddw %%ymm" #product ", %%ymm" #sum ", %%ymm" #sum "\n"
__attribute__((target("avx2"))) static void peak_avx2(const uint8_t *from, size_t bytes)
{
    (void)from, (void)bytes;
    long n = PRODUCTS / 8;
    __asm__ volatile("1:\n" PAIR(0, 8) PAIR(1, 9) PAIR(2, 10) PAIR(3, 11) PAIR(4, 8) PAIR(5, 9) PAIR(6, 10) PAIR(7, 11)
                     "dec %0\n jnz 1b"
                     : "+r"(n)::"ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9",
                       "ymm10", "ymm11", "ymm14", "ymm15", "cc");
}
#define DOT(sum) "vpdpbusd %%zmm15, %%zmm14, %%zmm" #sum "\n"
__attribute__((target("avx512f,avx512vnni"))) static void peak_vnni(const uint8_t *from, size_t bytes)
{
    (void)from, (void)bytes;
    long n = PRODUCTS / 12;
    __asm__ volatile("1:\n" DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10) DOT(11)
                     "dec %0\n jnz 1b"
                     : "+r"(n)::"zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9",
                       "zmm10", "zmm11", "zmm14", "zmm15", "cc");
}
#endif

int main(int argc, char **argv)
{
    const int most = argc > 1 ? atoi(argv[1]) : 1;
    kernel = facedex_kernel(NULL);
    const size_t large = (size_t)512 << 20;
    uint8_t *memory = aligned_alloc(4096, large);
    block = aligned_alloc(64, D * 32), probes = aligned_alloc(64, PROBES * D);
    packed = aligned_alloc(64, BLOCKS * D * 16 + 8192);
    if (!memory || !block || !probes || !packed)
        return 1;
    memset(memory, 1, large), memset(packed, 0x37, BLOCKS * D * 16 + 8192), memset(block, 100, D * 32);
    memset(probes, 3, PROBES * D);
    for (int q = 0; q < PROBES; q++)
        high[q] = 1 << 30;
    printf("{\"kernel\": \"%s\", \"threads\": [", kernel->name);
    for (int threads = 1; threads <= most && threads <= MOST; threads++) {
        const double from_memory = least(read_all, memory, large, threads, 7);
        const double from_cache = least(read_all, memory, (size_t)3 << 20, threads, 200);
        const double batch = least(scan_batch, memory, large, threads, 20), one = least(scan_one, memory, large, threads, 20);
        double products = 0;
#ifdef FACEDEX_HAVE_AVX2
        if (strcmp(kernel->name, "avx2") == 0)
            products = PRODUCTS * 32.0 / D / least(peak_avx2, memory, large, threads, 20);
        if (strcmp(kernel->name, "avx512vnni") == 0)
            products = PRODUCTS / 12 * 12 * 64.0 / D / least(peak_vnni, memory, large, threads, 20);
#endif
        printf("%s{\"threads\": %d, \"gb_a_second\": %.2f, \"gb_a_second_3mb\": %.2f, "
               "\"int8_peak_billion_faces\": %.3f, \"scan8_billion_faces\": %.3f, \"scan4_gb_a_second\": %.2f}",
               threads > 1 ? ", " : "", threads, (double)large * 1e-9 / from_memory, 3.145728e-3 / from_cache,
               products * threads * 1e-9, 32.0 * PROBES * REPEAT * threads * 1e-9 / batch,
               (double)BLOCKS * D * 16 * REPEAT * threads * 1e-9 / one);
    }
    printf("]}\n");
    free(memory), free(block), free(probes), free(packed);
    return 0;
}
