// Blocked products of a few rows with a panel of columns, the sums in registers.
//
// A step of a product multiplies a unit of A, given to all lanes, with 16 units of B. A unit is a float, or
// two bfloat16 that belong to neighbouring steps. B stands in panels of PANEL columns, one step after another.

#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstring>
#include <type_traits>

#include "vectors.hpp"

namespace {

// Sums are kept in vectors of the machine's own width: compilers spill what is wider.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int PARTS = 16 / LANES;
typedef float part __attribute__((vector_size(4 * LANES)));
typedef int whole_part __attribute__((vector_size(4 * LANES)));
typedef float partu __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int whole_partu __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct Float {
  typedef float unit;
  typedef part units;
  static constexpr int STEPS = 1;  // of the sum that a unit holds
  static inline units take(const unit* b) { return *(const partu*)b; }
  static inline part add(part sum, unit a, units b) {
    return (a - part{}) * b + sum;
  }
};
#ifdef __AVX512BF16__
struct Half {
  typedef int unit;
  typedef whole_part units;
  static constexpr int STEPS = 2;
  static inline units take(const unit* b) { return *(const whole_partu*)b; }
  static inline part add(part sum, unit a, units b) {
    return (part)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
  }
};
#endif

constexpr int PANEL = 64;
#if defined(__AVX512F__)
constexpr int ROWS = 6, WIDE = 4;  // 24 sums in 32 registers
#elif defined(__AVX__) || defined(__ARM_NEON)
constexpr int ROWS = 6, WIDE = 1;  // 12 of 16, 24 of 32
#else
constexpr int ROWS = 3, WIDE = 1;  // 12 of 16
#endif

// out(i, z, sums, width) receives `width` vectors of row i, from column 16 z on.
template <class T, int R, int W, class Out>
inline void tile(const typename T::unit* a, size_t row, size_t step, const typename T::unit* b, int steps, int i, int z,
                 Out out) {
  constexpr int P = W * PARTS;
  part sum[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int w = 0; w < P; w++) sum[r][w] = part{};
  for (int k = 0; k < steps; k++, a += step, b += PANEL) {
    typename T::units column[P];
#pragma GCC unroll 4
    for (int w = 0; w < P; w++) column[w] = T::take(b + LANES * w);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int w = 0; w < P; w++) sum[r][w] = T::add(sum[r][w], a[r * row], column[w]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    if constexpr (PARTS == 1) {
      out(i + r, z, sum[r], std::integral_constant<int, W>());
    } else {
      v16 row_sums[W];
      std::memcpy(row_sums, sum[r], sizeof row_sums);
      out(i + r, z, row_sums, std::integral_constant<int, W>());
    }
  }
}

template <class T, int R, class Out>
inline void tiles(const typename T::unit* a, size_t row, size_t step, int i, const typename T::unit* panel, int steps,
                  int wide, Out out) {
  int z = 0;
  for (; z + WIDE <= wide; z += WIDE) tile<T, R, WIDE>(a + i * row, row, step, panel + 16 * z, steps, i, z, out);
  for (; z < wide; z++) tile<T, R, 1>(a + i * row, row, step, panel + 16 * z, steps, i, z, out);
}

// All rows of A against one panel of B, of `wide` vectors. A(i, k) stands at a[i * row + k * step].
template <class T, class Out>
__attribute__((noinline)) void multiply(const typename T::unit* a, size_t row, size_t step, int rows,
                                        const typename T::unit* panel, int steps, int wide, Out out) {
  int i = 0;
  for (; i + ROWS <= rows; i += ROWS) tiles<T, ROWS>(a, row, step, i, panel, steps, wide, out);
  switch (rows - i) {
    case 1: return tiles<T, 1>(a, row, step, i, panel, steps, wide, out);
    case 2: return tiles<T, 2>(a, row, step, i, panel, steps, wide, out);
    case 3: return tiles<T, 3>(a, row, step, i, panel, steps, wide, out);
    case 4: return tiles<T, 4>(a, row, step, i, panel, steps, wide, out);
    case 5: return tiles<T, 5>(a, row, step, i, panel, steps, wide, out);
  }
}

}  // namespace
