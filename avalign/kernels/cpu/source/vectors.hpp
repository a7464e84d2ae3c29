// Vectors of 16 floats, the compiler's own, so that the same source serves AVX-512, AVX2 and NEON.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

typedef float v16 __attribute__((vector_size(64)));
typedef int i16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int i16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t h16u __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint16_t bf16;

inline v16 load(const float* p) { return *(const v16u*)p; }
inline i16 load(const int* p) { return *(const i16u*)p; }
inline void store(float* p, v16 x) { *(v16u*)p = x; }
inline void store(int* p, i16 x) { *(i16u*)p = x; }
inline v16 all(float x) { return x - v16{}; }  // x - 0 is x and costs nothing; x + 0 is an addition (of -0 it is 0)
inline v16 as_float(i16 x) { return (v16)x; }
inline v16 larger(v16 a, v16 b) { return a > b ? a : b; }
inline v16 smaller(v16 a, v16 b) { return a < b ? a : b; }
inline v16 magnitude(v16 x) { return (v16)((i16)x & 0x7fffffff); }

inline v16 load(const bf16* p) { return as_float(__builtin_convertvector(*(const h16u*)p, i16) << 16); }
// Rounded to the nearest, ties to even; NaN keeps its sign and stays NaN.
inline i16 to_bf16(v16 x) {
  i16 bits = (i16)x;
  i16 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (x == x ? rounded : (bits >> 16) | 0x40) & 0xffff;
}
inline void store(bf16* p, v16 x) { *(h16u*)p = __builtin_convertvector(to_bf16(x), h16u); }

inline float sum(v16 x) {
  float s[16];
  store(s, x);
  for (int w = 8; w; w /= 2)
    for (int k = 0; k < w; k++) s[k] += s[k + w];
  return s[0];
}
inline float greatest(v16 x) {
  float m = x[0];
  for (int k = 1; k < 16; k++) m = std::max(m, x[k]);
  return m;
}
inline bool any(i16 x) {
  int s = 0;
  for (int k = 0; k < 16; k++) s |= x[k];
  return s != 0;
}

const float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f, NEGLIGIBLE = -87.f;

// 0 below exp(-87), the least normal number; to 2e-7 of its value above.
inline v16 exp16(v16 x) {
  i16 counts = x > NEGLIGIBLE;
  x = smaller(larger(x, all(NEGLIGIBLE)), all(88.f));
  v16 n = (x * LOG2E + 12582912.f) - 12582912.f;  // 1.5 * 2^23: rounds to whole numbers
  v16 r = (x - n * LN2_HIGH) - n * LN2_LOW;
  v16 y = all(1.f / 5040);
  y = y * r + 1.f / 720;
  y = y * r + 1.f / 120;
  y = y * r + 1.f / 24;
  y = y * r + 1.f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.f;
  y = y * r + 1.f;
  y = as_float((i16)y + (__builtin_convertvector(n, i16) << 23));
  return counts ? y : v16{};
}

// Of positive normal numbers, to 2e-7; anything else is for the caller to set aside.
inline v16 log16(v16 x) {
  i16 bits = (i16)x;
  i16 e = (bits - 0x3f3504f3) >> 23;
  v16 f = as_float(bits - (e << 23)) - 1.f;  // sqrt(1/2) - 1 .. sqrt(2) - 1
  v16 s = f / (f + 2.f), z = s * s;
  v16 y = all(2.f / 9);
  y = y * z + 2.f / 7;
  y = y * z + 2.f / 5;
  y = y * z + 2.f / 3;
  v16 n = __builtin_convertvector(e, v16);
  return n * LN2_HIGH + (n * LN2_LOW + (y * z * s + 2.f * s));
}

#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, which) __builtin_shufflevector(a, b, which)
#else
#define SHUFFLE(a, b, which) __builtin_shuffle(a, b, i16{which})
#endif

inline v16 pairs(v16 a, v16 b) { return SHUFFLE(a, b, EVEN) + SHUFFLE(a, b, ODD); }

// The sums of 16 vectors, as one.
inline v16 sums(const v16* x) {
  v16 t[8];
  for (int k = 0; k < 8; k++) t[k] = pairs(x[2 * k], x[2 * k + 1]);
  for (int k = 0; k < 4; k++) t[k] = pairs(t[2 * k], t[2 * k + 1]);
  for (int k = 0; k < 2; k++) t[k] = pairs(t[2 * k], t[2 * k + 1]);
  return pairs(t[0], t[1]);
}

// A 16 x 16 block, turned: four perfect shuffles.
inline void transpose(const int* in, size_t in_row, int* out, size_t out_row) {
  i16 r[16], t[16];
  for (int k = 0; k < 16; k++) r[k] = load(in + k * in_row);
  for (int round = 0; round < 4; round++) {
    for (int k = 0; k < 8; k++) {
      t[2 * k] = SHUFFLE(r[k], r[k + 8], LOW);
      t[2 * k + 1] = SHUFFLE(r[k], r[k + 8], HIGH);
    }
    for (int k = 0; k < 16; k++) r[k] = t[k];
  }
  for (int k = 0; k < 16; k++) store(out + k * out_row, r[k]);
}

inline int up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace
