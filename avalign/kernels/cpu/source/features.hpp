// Features as operands of a product: norms, panels, and gradients on their way out.

#pragma once

#include <cmath>
#include <limits>
#include "products.hpp"

namespace {

// 16 values from column `at` of a row of d, 0 beyond it.
template <class In>
inline v16 values(const In* row, int at, int d) {
  if (at + 16 <= d) return load(row + at);
  In rest[16] = {};
  if (at < d) std::memcpy(rest, row + at, (d - at) * sizeof(In));
  return load(rest);
}

inline void put(float* to, v16 x) { store(to, x); }
inline void put(int* to, v16 x) {  // 16 values become 8 units
  bf16 half[16];
  store(half, x);
  std::memcpy(to, half, sizeof half);
}

template <class T, class In>
constexpr bool same() {
  return (T::STEPS == 1) == (sizeof(In) == 4);
}

// A row of d values as units, filled up with zeros to whole vectors of values.
template <class T, class In>
void units(const In* row, int d, typename T::unit* out) {
  for (int at = 0; at < d; at += 16) put(out + at / T::STEPS, values(row, at, d));
}

// 1 / |row|; 0 of the zero vector and of what is not real; infinity and NaN stay what they are.
template <class In>
void inverse_norms(const In* x, int rows, int d, const float* weights, float* out) {
  for (int i = 0; i < rows; i++) {
    if (!(weights[i] > 0)) {
      out[i] = 0;
      continue;
    }
    v16 s0{}, s1{};
    const In* row = x + (size_t)i * d;
    int at = 0;
    for (; at + 32 <= d; at += 32) {
      v16 p = load(row + at), q = load(row + at + 16);
      s0 += p * p;
      s1 += q * q;
    }
    for (; at < d; at += 16) {
      v16 p = values(row, at, d);
      s0 += p * p;
    }
    float norm = std::sqrt(sum(s0 + s1));
    out[i] = norm < 1.1e-19f ? 0.f : std::isfinite(norm) ? 1.f / norm : std::numeric_limits<float>::quiet_NaN();
  }
}

// Rows j .. j + 64 of y as a panel: the values of a row become a column. Rows without weight become zeros.
template <class T, class In>
void panel_of_columns(const In* y, int rows, int d, const float* weights, int j, typename T::unit* temp,
                      typename T::unit* panel) {
  typedef typename T::unit unit;
  int wide = up(d, 16 * T::STEPS) / T::STEPS;
  for (int block = 0; block < PANEL && j + block < up(rows, 16); block += 16) {
    const unit* from = temp;
    size_t row = wide;
    bool whole = j + block + 16 <= rows && d == wide * T::STEPS && same<T, In>();
    for (int k = 0; whole && k < 16; k++) whole = weights[j + block + k] > 0;
    if (whole) {
      from = (const unit*)(y + (size_t)(j + block) * d);
    } else {
      std::memset(temp, 0, sizeof(unit) * 16 * wide);
      for (int k = 0; k < 16 && j + block + k < rows; k++)
        if (weights[j + block + k] > 0) units<T>(y + (size_t)(j + block + k) * d, d, temp + k * row);
    }
    for (int at = 0; at < wide; at += 16)
      transpose((const int*)from + at, row, (int*)panel + (size_t)at * PANEL + block, PANEL);
  }
}

// Columns at .. at + 64 of x as a panel, a step a row (two rows a step of bfloat16). No weight: zeros.
template <class In>
void panel_of_rows(const In* x, int rows, int d, const float* weights, int at, int wide, float* panel) {
  for (int i = 0; i < rows; i++)
    for (int z = 0; z < wide; z++)
      store(panel + (size_t)i * PANEL + 16 * z,
            weights[i] > 0 ? values(x + (size_t)i * d, at + 16 * z, d) : v16{});
}
template <class In>
void panel_of_rows(const In* x, int rows, int d, const float* weights, int at, int wide, int* panel) {
  for (int i = 0; i < rows; i += 2)
    for (int z = 0; z < wide; z++) {
      i16 one{}, two{};
      if (weights[i] > 0) one = to_bf16(values(x + (size_t)i * d, at + 16 * z, d));
      if (i + 1 < rows && weights[i + 1] > 0) two = to_bf16(values(x + (size_t)(i + 1) * d, at + 16 * z, d));
      store(panel + (size_t)(i / 2) * PANEL + 16 * z, one | (two << 16));
    }
}

// To an aligned place, past the cache: nobody reads a gradient soon.
inline void stream(float* p, v16 x) {
#ifdef __AVX512F__
  _mm512_stream_ps(p, (__m512)x);
#else
  store(p, x);
#endif
}
inline void stream(bf16* p, v16 x) { store(p, x); }

template <class Out>
void clear(Out* to, size_t count) {
  std::memset(to, 0, count * sizeof(Out));
}

}  // namespace
