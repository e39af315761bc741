/* Float32 products of many probes with rows, 2 registers of rows by MOST probes at a time.  A panel of rows is
 * transposed once for all probes, so that lanes are rows: nothing is summed across a register.
 *
 * Included by a kernel which has defined TARGET and INLINE and
 *   LANES                           floats of a register
 *   MOST                            probes of a tile: 2 * MOST sums, 2 registers of rows and one of a probe at once
 *   VEC, VZERO, VLOAD, VSTORE, VSPLAT, VFMA (a * b + c)
 */
enum { PANEL_ROWS = 2 * LANES, PANEL_DEPTH = 256 }; /* 16 or 32 KB a panel, in or near the nearest cache */

#define UNROLLED _Pragma("GCC unroll 16")

/* `more`: add to what is in out. Probes are addressed four from one base: there are few address registers. */
#define PANEL_TILE(P)                                                                                                  \
    TARGET static void panel_tile##P(const float *panel, size_t depth, const float *probes, size_t apart, float *out,  \
                                     size_t stride, int more)                                                          \
    {                                                                                                                  \
        VEC a[P], b[P];                                                                                                \
        UNROLLED for (int q = 0; q < P; q++)                                                                           \
        {                                                                                                              \
            a[q] = more ? VLOAD(out + q * stride) : VZERO;                                                             \
            b[q] = more ? VLOAD(out + q * stride + LANES) : VZERO;                                                     \
        }                                                                                                              \
        const float *base[(P + 3) / 4];                                                                                \
        UNROLLED for (int i = 0; i < (P + 3) / 4; i++)                                                                 \
            base[i] = probes + 4 * (size_t)i * apart;                                                                  \
        for (size_t d = 0; d < depth; d++, panel += PANEL_ROWS) {                                                      \
            const VEC x = VLOAD(panel), y = VLOAD(panel + LANES);                                                      \
            UNROLLED for (int q = 0; q < P; q++)                                                                       \
            {                                                                                                          \
                const VEC p = VSPLAT(base[q / 4][(q % 4) * apart + d]);                                                \
                a[q] = VFMA(x, p, a[q]);                                                                               \
                b[q] = VFMA(y, p, b[q]);                                                                               \
            }                                                                                                          \
        }                                                                                                              \
        UNROLLED for (int q = 0; q < P; q++)                                                                           \
        {                                                                                                              \
            VSTORE(out + q * stride, a[q]);                                                                            \
            VSTORE(out + q * stride + LANES, b[q]);                                                                    \
        }                                                                                                              \
    }
PANEL_TILE(1)
PANEL_TILE(2)
PANEL_TILE(3)
PANEL_TILE(6)
#if MOST > 6
PANEL_TILE(MOST)
#endif

/* As `products` of kernels.h. */
TARGET static void panel_products(const float *rows, size_t n_rows, size_t n, const float *probes, size_t apart,
                                  size_t n_probes, float *out, size_t stride)
{
    _Alignas(64) float panel[PANEL_DEPTH * PANEL_ROWS];
    for (size_t r = 0; r < n_rows; r += PANEL_ROWS)
        for (size_t d = 0; d < n; d += PANEL_DEPTH) {
            const size_t depth = n - d < PANEL_DEPTH ? n - d : PANEL_DEPTH, left = n_rows - r;
            facedex_avx2_panel(rows + r * n + d, left < PANEL_ROWS ? left : PANEL_ROWS, n, depth, PANEL_ROWS, panel);
            const float *p = probes + d;
            float *to = out + r;
            size_t q = n_probes;
#define TILES(P)                                                                                                       \
    for (; q >= P; q -= P, p += P * apart, to += P * stride)                                                           \
        panel_tile##P(panel, depth, p, apart, to, stride, d > 0);
#if MOST > 6
            TILES(MOST)
#endif
            TILES(6)
            TILES(3)
            TILES(2)
            TILES(1)
#undef TILES
        }
}
