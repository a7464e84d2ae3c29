// Entropic optimal transport on a CPU, many small problems at once, a thread an item.
//
// From features: norms, cosine cost by a blocked product, Sinkhorn's rounds on the kernel, and the gradients
// to both sets of features by two more products. Features are read once while they are in the cache, the cost
// never leaves it, and nothing is kept of a round. From a cost: the rounds alone.
//
// The rounds are those of avalign/ot/rounds.py, step for step: windows, relaxation, larger epsilons first,
// logarithms where the kernel's range ends. What differs is the precision: float32, sums of the value in double.
//
// Vectors are the compiler's own (16 floats), so that the same source serves AVX-512, AVX2 and NEON; only the
// bfloat16 product is an instruction of its own.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <omp.h>
#include <type_traits>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

// ---------------------------------------------------------------------------------------------- vectors

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

// --------------------------------------------------------------------------------------------- products
//
// A step of a product multiplies a unit of A, given to all lanes, with 16 units of B. A unit is a float, or
// two bfloat16 that belong to neighbouring steps. B stands in panels of PANEL columns, one step after another.

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

// --------------------------------------------------------------------------------------------- features

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

// ----------------------------------------------------------------------------------------------- rounds

struct Settings {
  float epsilon;
  int rounds;
  float tolerance;  // 0: exactly `rounds` plain rounds
};

constexpr int WINDOW = 6, ROUGH_ROUNDS = 60;
constexpr float MOST_SCALING = 30, FIRST_RELAXATION = 1.5f, MOST_RELAXATION = 1.97f, GROWTH = 2;
constexpr int RISES = 5;
constexpr float EASY_REACH = 20, ROUGH_ERROR = 0.03f, NOTHING = -1e30f;

struct Space {  // of one thread; grows, and is reused item after item
  char* memory = nullptr;
  size_t size = 0, used = 0;
  ~Space() { std::free(memory); }
  void start(size_t bytes) {
    used = 0;
    if (bytes <= size) return;
    std::free(memory);
    size = bytes;
    memory = (char*)std::aligned_alloc(64, (size + 4095) / 4096 * 4096);
  }
  template <class U>
  U* take(size_t count) {
    U* p = (U*)(memory + used);
    used += (count * sizeof(U) + 63) / 64 * 64;
    return p;
  }
};

// One problem. Rows and columns are filled up to whole vectors with entries that carry nothing.
struct Item {
  int n, m;    // filled up to a multiple of 16
  size_t row;  // floats from one row of cost and kernel to the next
  float *cost, *kernel;
  float *a, *b, *log_a, *log_b;        // marginals
  float *phi, *psi;                    // the potentials the kernel was made at, in units of epsilon
  float *p, *q, *next_q;               // the potentials beyond those
  float *u, *v, *next_v, *w;           // a exp(p), b exp(q), b exp(next_q), columns' sums
  float *keep_phi, *keep_psi, *extra;  // as a window began

  static size_t stride(int m) {  // rows must not fall on one another in the cache
    size_t row = up(m, 16);
    return row % 256 == 0 ? row + 16 : row;
  }
  static size_t bytes(int n, int m) { return 8 * (size_t)up(n, 16) * stride(m) + 64 * (size_t)(up(n, 16) + up(m, 16)) + 4096; }
  void make(Space& space, int rows, int columns) {
    n = up(rows, 16), m = up(columns, 16), row = stride(columns);
    cost = space.take<float>(n * row), kernel = space.take<float>(n * row);
    for (float** x : {&a, &log_a, &phi, &p, &u, &keep_phi}) *x = space.take<float>(n);
    for (float** x : {&b, &log_b, &psi, &q, &next_q, &v, &next_v, &w, &keep_psi, &extra}) *x = space.take<float>(m);
  }

  void marginals(const float* source, int rows, const float* target, int columns) {
    for (int i = 0; i < n; i++) a[i] = i < rows ? source[i] : 0;
    for (int j = 0; j < m; j++) b[j] = j < columns ? target[j] : 0;
    for (int i = 0; i < n; i += 16) store(log_a + i, load(a + i) > 0 ? log16(load(a + i)) : all(NOTHING));
    for (int j = 0; j < m; j += 16) store(log_b + j, load(b + j) > 0 ? log16(load(b + j)) : all(NOTHING));
  }

  // The kernel exp(phi + psi - cost / epsilon) at psi and, unless they are to be chosen, at phi: chosen, they
  // make the greatest entry of a row 1.
  void absorb(float inverse, bool choose) {
    for (int j = 0; j < m; j += 16) store(extra + j, load(b + j) > 0 ? load(psi + j) : all(NOTHING));
    for (int i = 0; i < n; i++) {
      float *k = kernel + i * row, *c = cost + i * row;
      if (!(a[i] > 0)) {
        phi[i] = 0;
        for (int j = 0; j < m; j += 16) store(k + j, v16{});
        continue;
      }
      if (choose) {
        v16 most = all(NOTHING);
        for (int j = 0; j < m; j += 16) most = larger(most, load(extra + j) - load(c + j) * inverse);
        phi[i] = -greatest(most);
      }
      for (int j = 0; j < m; j += 16) store(k + j, exp16((load(extra + j) + phi[i]) - load(c + j) * inverse));
    }
    std::memset(p, 0, sizeof(float) * n);
    std::memset(q, 0, sizeof(float) * m);
    std::memcpy(u, a, sizeof(float) * n);
    std::memcpy(v, b, sizeof(float) * m);
  }

  // Rows, then columns, from q, v to p, u, w and next_q, next_v. Returns whether it left the kernel's range.
  // PLAIN: p is left alone (rows_done makes it), and so is next_q.
  template <bool PLAIN>
  bool round(float relax_rows, float relax_columns) {
    i16 bad{};
    for (int j = 0; j < m; j += 16) store(w + j, v16{});
    for (int i = 0; i < n; i += 16) {
      v16 row_sums[16];
      for (int half = 0; half < 16; half += 8) {
        v16 s[8] = {};
        const float* k = kernel + (i + half) * row;
        for (int j = 0; j < m; j += 16) {
          v16 y = load(v + j);
#pragma GCC unroll 8
          for (int r = 0; r < 8; r++) s[r] += load(k + r * row + j) * y;
        }
        for (int r = 0; r < 8; r++) row_sums[half + r] = s[r];
      }
      v16 r = sums(row_sums), mass = load(a + i);
      i16 real = mass > 0;
      if (PLAIN) {
        bad |= real & ~((r > 1e-13f) & (r < 1e13f));
        store(u + i, real ? mass / r : v16{});
      } else {
        v16 old = load(p + i), now = real ? old + relax_rows * (-log16(r) - old) : v16{};
        bad |= real & ~((magnitude(now) <= MOST_SCALING) & (r > 1e-37f) & (r < 1e37f));
        store(p + i, now);
        store(u + i, mass * exp16(now));
      }
      const float* k = kernel + i * row;
      int j = 0;
      for (; j + 64 <= m; j += 64) accumulate<4>(k, i, j);
      for (; j < m; j += 16) accumulate<1>(k, i, j);
    }
    for (int j = 0; j < m; j += 16) {
      v16 y = load(w + j), mass = load(b + j);
      i16 real = mass > 0;
      if (PLAIN) {
        bad |= real & ~((y > 1e-13f) & (y < 1e13f));
        store(next_v + j, real ? mass / y : v16{});
      } else {
        v16 old = load(q + j), now = real ? old + relax_columns * (-log16(y) - old) : v16{};
        bad |= real & ~((magnitude(now) <= MOST_SCALING) & (y > 1e-37f) & (y < 1e37f));
        store(next_q + j, now);
        store(next_v + j, mass * exp16(now));
      }
    }
    return any(bad);
  }

  template <int W>
  inline void accumulate(const float* k, int i, int j) {
    v16 even[W], odd[W];
    for (int z = 0; z < W; z++) even[z] = load(w + j + 16 * z), odd[z] = v16{};
#pragma GCC unroll 8
    for (int r = 0; r < 16; r += 2) {
      v16 x = all(u[i + r]), y = all(u[i + r + 1]);
#pragma GCC unroll 4
      for (int z = 0; z < W; z++) {
        even[z] += load(k + r * row + j + 16 * z) * x;
        odd[z] += load(k + (r + 1) * row + j + 16 * z) * y;
      }
    }
    for (int z = 0; z < W; z++) store(w + j + 16 * z, even[z] + odd[z]);
  }

  float column_error() {
    double s = 0;
    for (int j = 0; j < m; j += 16) s += sum(magnitude(load(v + j) * load(w + j) - load(b + j)));
    return (float)s;
  }

  void step() {
    std::swap(q, next_q);
    std::swap(v, next_v);
  }

  // `count` rounds, the last one with exact rows. Afterwards p, q (u, v) are the plan, next_q, next_v what the
  // next window begins with.
  float window(int count, float relaxation, float inverse) {
    bool plain = relaxation == 1, bad = false;
    for (int i = 0; i < n; i += 16) store(keep_phi + i, load(phi + i) + load(p + i));
    for (int j = 0; j < m; j += 16) store(keep_psi + j, load(psi + j) + load(q + j));
    for (int k = 0; k < count && !bad; k++) {
      if (k) step();
      if (plain)
        bad = round<true>(1, 1);
      else
        bad = round<false>(k == count - 1 ? 1.f : relaxation, relaxation);
    }
    if (bad) return log_window(count, relaxation, inverse);
    if (plain) {
      logs(u, a, p, n);
      logs(v, b, q, m);
      logs(next_v, b, next_q, m);
    }
    return column_error();
  }

  void logs(const float* scaling, const float* mass, float* out, int size) {
    for (int i = 0; i < size; i += 16)
      store(out + i, load(mass + i) > 0 ? log16(load(scaling + i)) - log16(load(mass + i)) : v16{});
  }

  // The same window on logarithms, from keep_phi and keep_psi; the kernel is made anew.
  float log_window(int count, float relaxation, float inverse) {
    float *f = keep_phi, *g = keep_psi, *columns = w;
    for (int k = 0; k < count; k++) {
      if (k) std::memcpy(g, next_q, sizeof(float) * m);
      for (int j = 0; j < m; j += 16) store(extra + j, load(b + j) > 0 ? load(g + j) + load(log_b + j) : all(NOTHING));
      for (int i = 0; i < n; i++) {
        if (!(a[i] > 0)) {
          f[i] = 0;
          continue;
        }
        const float* c = cost + i * row;
        v16 most = all(NOTHING), s{};
        for (int j = 0; j < m; j += 16) most = larger(most, load(extra + j) - load(c + j) * inverse);
        float top = greatest(most);
        for (int j = 0; j < m; j += 16) s += exp16(load(extra + j) - load(c + j) * inverse - top);
        float exact = -(top + std::log(sum(s)));
        f[i] = k == count - 1 ? exact : f[i] + relaxation * (exact - f[i]);
      }
      for (int j = 0; j < m; j += 16) store(extra + j, all(NOTHING)), store(columns + j, v16{});
      for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
          if (!(a[i] > 0)) continue;
          const float *c = cost + i * row, shift = f[i] + log_a[i];
          for (int j = 0; j < m; j += 16) {
            v16 e = shift - load(c + j) * inverse;
            if (pass == 0)
              store(extra + j, larger(load(extra + j), e));
            else
              store(columns + j, load(columns + j) + exp16(e - load(extra + j)));
          }
        }
      for (int j = 0; j < m; j += 16) {
        i16 real = load(b + j) > 0;
        v16 exact = -(load(extra + j) + log16(load(columns + j))), old = load(g + j);
        store(columns + j, real ? exact : v16{});
        store(next_q + j, real ? old + relaxation * (exact - old) : v16{});
      }
    }
    // columns holds the exact psi: a column carries b exp(psi - exact).
    double error = 0;
    for (int j = 0; j < m; j += 16)
      error += sum(magnitude(load(b + j) * (exp16(load(g + j) - load(columns + j)) - 1.f)));
    std::memcpy(phi, f, sizeof(float) * n);
    std::memcpy(psi, next_q, sizeof(float) * m);
    for (int j = 0; j < m; j++) next_v[j] = g[j] - next_q[j];
    absorb(inverse, false);
    for (int j = 0; j < m; j += 16) {
      v16 x = load(next_v + j);
      store(q + j, x);
      store(v + j, load(b + j) * exp16(x));
      store(next_v + j, load(b + j));
      store(next_q + j, v16{});
    }
    return (float)error;
  }

  struct Made {
    int rounds;
    float error;
  };

  // Rounds at one epsilon from psi. Afterwards phi + p, psi + q are the potentials and u, v the scalings.
  Made run(float epsilon, int rounds, float tolerance, bool relax) {
    float inverse = 1 / epsilon;
    absorb(inverse, true);
    float relaxation = relax ? FIRST_RELAXATION : 1, most = MOST_RELAXATION;
    float before = INFINITY, best = INFINITY, error = INFINITY;
    int rises = 0;
    for (int done = 0;;) {
      int count = std::min(WINDOW, rounds - done);
      if (done == 0 && relax) first_rows();
      error = window(count, relaxation, inverse);
      done += count;
      if (!(error > tolerance) || done >= rounds) return {done, error};
      step();
      if (!relax) continue;
      double rate = std::pow((double)error / before, 1.0 / WINDOW), over = rate + relaxation - 1;
      double theta = std::min(over * over / (rate * relaxation * relaxation), 1 - 1e-4);
      if (rate > relaxation - 1 && rate < 1) relaxation = std::max(relaxation, (float)(2 / (1 + std::sqrt(1 - theta))));
      rises = error < 0.9f * best ? 0 : rises + (error > 1.05f * before);
      if (error > GROWTH * best || rises >= RISES) {
        most = 1 + 0.8f * (relaxation - 1);
        best = error;
        rises = 0;
      }
      best = std::min(best, error);
      relaxation = std::min(relaxation, most);
      before = error;
    }
  }

  // p such that the rows are exact: the first round then goes no further than Sinkhorn's.
  void first_rows() {
    for (int i = 0; i < n; i++) {
      v16 s{};
      for (int j = 0; j < m; j += 16) s += load(kernel + i * row + j) * load(v + j);
      p[i] = a[i] > 0 ? -std::log(sum(s)) : 0;
    }
  }

  // From psi in units of the cost (start) to the plan. Returns all rounds made.
  Made solve(const Settings& settings, bool started) {
    float epsilon = settings.epsilon;
    Made made{0, 0};
    float scale = epsilon;
    if (settings.tolerance > 0 && !started) {
      float reach = 0;
      for (int i = 0; i < n; i++) {
        if (!(a[i] > 0)) continue;
        v16 least = all(INFINITY), most = all(-INFINITY);
        for (int j = 0; j < m; j += 16) {
          i16 real = load(b + j) > 0;
          v16 c = load(cost + i * row + j);
          least = real ? smaller(least, c) : least;
          most = real ? larger(most, c) : most;
        }
        reach = std::max(reach, greatest(most) + greatest(-least));
      }
      int stages = (int)std::ceil(std::log2(std::max(reach / epsilon / EASY_REACH, 1.f)));
      for (scale = epsilon * std::ldexp(1.f, stages); stages > 0; stages--) {
        Made rough = run(scale, ROUGH_ROUNDS, ROUGH_ERROR, true);
        made.rounds += rough.rounds;
        for (int j = 0; j < m; j++) psi[j] = (psi[j] + q[j]) * 2;  // in units of the next epsilon
        scale /= 2;
      }
    }
    bool relax = settings.tolerance > 0;
    Made last = run(epsilon, settings.rounds, relax ? settings.tolerance : -1, relax);
    return {made.rounds + last.rounds, last.error};
  }
};

// -------------------------------------------------------------------------------------------- gradients

struct Features {
  const void *x, *y;  // (b, n, d), (b, m, d), contiguous
  int b, n, m, d;
};
struct Marginals {
  const float *source, *target, *start;  // (b, n), (b, m), (b, m) in units of the cost or null
};
struct Answer {
  float *value, *f, *g, *error;  // (b,), (b, n), (b, m), (b,)
  int64_t* rounds;               // (b,)
};
struct Gradients {
  const float* upstream;  // (b,)
  void *x, *y;            // as the features; null: not wanted
};

// What one thread needs beside the item itself.
template <class T>
struct Desk {
  typedef typename T::unit unit;
  unit *temp, *panel, *rows, *plan, *turned;
  float *norm_x, *norm_y, *share_x, *share_y;

  static int wide(int d) { return up(d, 16 * T::STEPS) / T::STEPS; }
  static size_t bytes(const Features& f) {
    size_t n = up(f.n, 16), m = up(f.m, 16), d = wide(f.d);
    size_t steps = std::max(d, std::max(n, m));
    return 4 * (16 * d + steps * PANEL + n * d + 2 * n * Item::stride(f.m) + 2 * n + 2 * m) + 4096;
  }
  void make(Space& space, const Features& f) {
    int n = up(f.n, 16), m = up(f.m, 16), d = wide(f.d);
    temp = space.take<unit>(16 * (size_t)d);
    panel = space.take<unit>((size_t)std::max(d, std::max(n, m)) * PANEL);
    rows = space.take<unit>((size_t)n * d);
    plan = space.take<unit>(T::STEPS == 1 ? 0 : n * Item::stride(f.m) / 2);
    turned = space.take<unit>(T::STEPS == 1 ? 0 : n * Item::stride(f.m) / 2);
    norm_x = space.take<float>(n), share_x = space.take<float>(n);
    norm_y = space.take<float>(m), share_y = space.take<float>(m);
  }
};

template <class T, class In>
void cosine_cost(Item& item, Desk<T>& desk, const In* x, const In* y, int n, int m, int d) {
  typedef typename T::unit unit;
  inverse_norms(x, n, d, item.a, desk.norm_x);
  inverse_norms(y, m, d, item.b, desk.norm_y);
  for (int i = n; i < item.n; i++) desk.norm_x[i] = 0;
  for (int j = m; j < item.m; j++) desk.norm_y[j] = 0;
  const unit* rows = (const unit*)x;
  size_t row = d / T::STEPS;
  if (!same<T, In>() || d % T::STEPS) {
    rows = desk.rows, row = Desk<T>::wide(d);
    for (int i = 0; i < n; i++) units<T>(x + (size_t)i * d, d, desk.rows + i * row);
  }
  for (int i = n; i < item.n; i++) std::memset(item.cost + i * item.row, 0, sizeof(float) * item.m);
  for (int j = 0; j < item.m; j += PANEL) {
    panel_of_columns<T>(y, m, d, item.b, j, desk.temp, desk.panel);
    multiply<T>(rows, row, 1, n, desk.panel, (d + T::STEPS - 1) / T::STEPS, std::min(PANEL, item.m - j) / 16,
                [&](int i, int z, const v16* dots, auto width) {
                  float *to = item.cost + i * item.row + j + 16 * z, *norms = desk.norm_y + j + 16 * z;
                  v16 norm = all(desk.norm_x[i]);
#pragma GCC unroll 4
                  for (int w = 0; w < width; w++) store(to + 16 * w, 1.f - dots[w] * (load(norms + 16 * w) * norm));
                });
  }
}

// The plan as it meets raw features, T_ij / (|x_i| |y_j|), in the kernel's place; what each token weighs
// in its own gradient, sum_j T_ij cos_ij / |x_i|^2.
template <class T>
void weigh(Item& item, Desk<T>& desk) {
  for (int j = 0; j < item.m; j += 16) store(desk.share_y + j, v16{});
  for (int i = 0; i < item.n; i++) {
    float *k = item.kernel + i * item.row, *c = item.cost + i * item.row;
    if (!(item.a[i] > 0)) {
      desk.share_x[i] = 0;  // the kernel's row is 0
      continue;
    }
    v16 s{};
    for (int j = 0; j < item.m; j += 16) {
      v16 mass = load(k + j) * load(item.v + j) * item.u[i], close = mass * (1.f - load(c + j));
      s += close;
      store(desk.share_y + j, load(desk.share_y + j) + close);
      store(k + j, mass * (load(desk.norm_y + j) * desk.norm_x[i]));
    }
    desk.share_x[i] = sum(s) * desk.norm_x[i] * desk.norm_x[i];
  }
  for (int j = 0; j < item.m; j++) desk.share_y[j] *= desk.norm_y[j] * desk.norm_y[j];
}

// Both operands of the gradients' products: plan(i, j) and plan(j, i), and how to step through them.
struct Operand {
  size_t row, step;
};
inline void operands(Item& item, Desk<Float>& desk, Operand& plain, Operand& turned) {
  desk.plan = desk.turned = item.kernel;
  plain = {item.row, 1}, turned = {1, item.row};
}
#ifdef __AVX512BF16__
inline void operands(Item& item, Desk<Half>& desk, Operand& plain, Operand& turned) {
  size_t row = item.row / 2;  // units
  for (int i = 0; i < item.n; i += 2)
    for (int j = 0; j < item.m; j += 16) {
      v16 one = load(item.kernel + i * item.row + j), two = load(item.kernel + (i + 1) * item.row + j);
      store((bf16*)(desk.plan + i * row) + j, one);
      store((bf16*)(desk.plan + (i + 1) * row) + j, two);
      store(desk.turned + (i / 2) * item.row + j, to_bf16(one) | (to_bf16(two) << 16));
    }
  plain = {row, 1}, turned = {1, item.row};
}
#endif

// gradient_i = upstream (share_i x_i - sum_j plan_ij y_j)
template <class T, class In>
void gradient(const typename T::unit* plan, Operand at, const In* x, int n, const float* weights, const float* share,
              const In* y, int m, const float* other_weights, int d, float upstream, typename T::unit* panel, In* out) {
  for (int c = 0; c < d; c += PANEL) {
    int wide = up(std::min(PANEL, d - c), 16) / 16;
    panel_of_rows(y, m, d, other_weights, c, wide, panel);
    multiply<T>(plan, at.row, at.step, n, panel, (m + T::STEPS - 1) / T::STEPS, wide,
                [&](int i, int z, const v16* dots, auto width) {
                  size_t column = c + 16 * z, place = (size_t)i * d + column;
                  if (!(weights[i] > 0)) return clear(out + place, std::min<size_t>(16 * width, d - column));
                  v16 own = all(upstream * share[i]), others = all(upstream);
                  if (column + 16 * width > (size_t)d) {
                    for (int w = 0; w < width; w++) {
                      In rest[16];
                      store(rest, own * values(x + (size_t)i * d, column + 16 * w, d) - others * dots[w]);
                      if (column + 16 * w < (size_t)d)
                        std::memcpy(out + place + 16 * w, rest, std::min<size_t>(16, d - column - 16 * w) * sizeof(In));
                    }
                  } else if (((uintptr_t)(out + place) & 63) == 0) {
#pragma GCC unroll 4
                    for (int w = 0; w < width; w++)
                      stream(out + place + 16 * w, own * load(x + place + 16 * w) - others * dots[w]);
                  } else {
                    for (int w = 0; w < width; w++)
                      store(out + place + 16 * w, own * load(x + place + 16 * w) - others * dots[w]);
                  }
                });
  }
}

// ---------------------------------------------------------------------------------------------- answers

void answer(Item& item, const Item::Made& made, const Settings& settings, const Answer& out, int k, int n, int m,
            bool valid) {
  double value = 0;
  for (int i = 0; i < n; i++) {
    double f = item.a[i] > 0 ? settings.epsilon * ((double)item.phi[i] + item.p[i]) : 0;
    out.f[(size_t)k * n + i] = (float)f;
    value += f * item.a[i];
  }
  for (int j = 0; j < m; j++) {
    double g = item.b[j] > 0 ? settings.epsilon * ((double)item.psi[j] + item.q[j]) : 0;
    out.g[(size_t)k * m + j] = (float)g;
    value += g * item.b[j];
  }
  out.value[k] = valid ? (float)value : std::numeric_limits<float>::quiet_NaN();
  out.error[k] = valid ? made.error : std::numeric_limits<float>::infinity();
  out.rounds[k] = made.rounds;
}

void begin(Item& item, const Marginals& given, int k, int n, int m, float epsilon) {
  item.marginals(given.source + (size_t)k * n, n, given.target + (size_t)k * m, m);
  for (int j = 0; j < item.m; j++)
    item.psi[j] = given.start && j < m && item.b[j] > 0 ? given.start[(size_t)k * m + j] / epsilon : 0;
}

// A given cost, 0 where nothing is carried, whatever it held there.
void take_cost(Item& item, const float* cost, int n, int m) {
  std::memset(item.cost, 0, sizeof(float) * item.n * item.row);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < m; j++)
      if (item.a[i] > 0 && item.b[j] > 0) item.cost[i * item.row + j] = cost[(size_t)i * m + j];
}

template <class T, class In>
int from_features(const Features& in, const Marginals& given, const Settings& settings, const Answer& out,
                  const Gradients& slopes, int threads) {
  bool failed = false;
#pragma omp parallel num_threads(threads)
  {
    Space space;
    space.start(Item::bytes(in.n, in.m) + Desk<T>::bytes(in));
    if (!space.memory) {
#pragma omp atomic write
      failed = true;
    } else {
      Item item;
      Desk<T> desk;
      item.make(space, in.n, in.m);
      desk.make(space, in);
#pragma omp for schedule(dynamic, 1)
      for (int k = 0; k < in.b; k++) {
        const In *x = (const In*)in.x + (size_t)k * in.n * in.d, *y = (const In*)in.y + (size_t)k * in.m * in.d;
        begin(item, given, k, in.n, in.m, settings.epsilon);
        cosine_cost<T>(item, desk, x, y, in.n, in.m, in.d);
        bool valid = true;
        for (int i = 0; i < item.n; i++) valid &= std::isfinite(desk.norm_x[i]);
        for (int j = 0; j < item.m; j++) valid &= std::isfinite(desk.norm_y[j]);
        Item::Made made{0, 0};
        if (valid) made = item.solve(settings, given.start != nullptr);
        answer(item, made, settings, out, k, in.n, in.m, valid);
        if (!valid || !slopes.x) continue;
        weigh(item, desk);
        Operand plain, turned;
        operands(item, desk, plain, turned);
        gradient<T>(desk.plan, plain, x, in.n, item.a, desk.share_x, y, in.m, item.b, in.d, slopes.upstream[k],
                    desk.panel, (In*)slopes.x + (size_t)k * in.n * in.d);
        gradient<T>(desk.turned, turned, y, in.m, item.b, desk.share_y, x, in.n, item.a, in.d, slopes.upstream[k],
                    desk.panel, (In*)slopes.y + (size_t)k * in.m * in.d);
      }
#ifdef __AVX512F__
      _mm_sfence();
#endif
    }
  }
  return failed ? 1 : 0;
}

// Bounds of the exact optimum of an item whose cost and marginals are in place, from any potentials.
// Below: a double c-transform. Above: the plan of f and g, rounded onto the marginals (Altschuler,
// Weed, Rigollet, arXiv:1705.09634, algorithm 2). As avalign/ot/certificate.py.
void bracket(Item& item, const float* f, const float* g, int n, int m, float epsilon, float* lower, float* upper) {
  float inverse = 1 / epsilon, *least = item.w, *columns = item.v, *reduce = item.next_v, *missing = item.extra;
  double below = 0, above = 0;
  for (int j = 0; j < item.m; j++) item.psi[j] = j < m ? g[j] : 0, least[j] = INFINITY, columns[j] = 0;
  for (int i = 0; i < n; i++) {
    if (!(item.a[i] > 0)) continue;
    float *c = item.cost + i * item.row, *k = item.kernel + i * item.row;
    v16 smallest = all(INFINITY), row_sum{};
    for (int j = 0; j < item.m; j += 16) {
      v16 slack = load(c + j) - load(item.psi + j), mass = load(item.b + j);
      smallest = smaller(smallest, mass > 0 ? slack : all(INFINITY));
      v16 plan = item.a[i] * mass * exp16((f[i] - slack) * inverse);
      row_sum += plan;
      store(k + j, plan);
    }
    float chosen = -greatest(-smallest), scale = std::min(1.f, item.a[i] / std::max(sum(row_sum), 1e-37f));
    below += (double)chosen * item.a[i];
    for (int j = 0; j < item.m; j += 16) {
      store(least + j, smaller(load(least + j), load(c + j) - chosen));
      store(k + j, load(k + j) * scale);
      store(columns + j, load(columns + j) + load(k + j));
    }
  }
  for (int j = 0; j < item.m; j += 16) {
    v16 mass = load(item.b + j), carried = load(columns + j);
    v16 scale = smaller(all(1.f), mass / larger(carried, all(1e-37f)));
    store(reduce + j, scale);
    store(missing + j, larger(mass - scale * carried, v16{}));
  }
  for (int j = 0; j < m; j++)
    if (item.b[j] > 0) below += (double)least[j] * item.b[j];
  double left = 0, moved = 0;
  for (int i = 0; i < n; i++) {
    if (!(item.a[i] > 0)) continue;
    float *c = item.cost + i * item.row, *k = item.kernel + i * item.row;
    v16 row_sum{}, cost{}, rest{};
    for (int j = 0; j < item.m; j += 16) {
      v16 plan = load(k + j) * load(reduce + j);
      row_sum += plan;
      cost += plan * load(c + j);
      rest += load(missing + j) * load(c + j);
    }
    double short_of = std::max(0.f, item.a[i] - sum(row_sum));
    above += sum(cost);
    left += short_of;
    moved += short_of * sum(rest);
  }
  *lower = (float)below;
  *upper = (float)(above + (left > 0 ? moved / left : 0));
}

template <class In>
int bracket_from_features(const Features& in, const Marginals& given, const float* f, const float* g, float epsilon,
                          float* lower, float* upper, int threads) {
  bool failed = false;
#pragma omp parallel num_threads(threads)
  {
    Space space;
    space.start(Item::bytes(in.n, in.m) + Desk<Float>::bytes(in));
    if (!space.memory) {
#pragma omp atomic write
      failed = true;
    } else {
      Item item;
      Desk<Float> desk;
      item.make(space, in.n, in.m);
      desk.make(space, in);
#pragma omp for schedule(dynamic, 1)
      for (int k = 0; k < in.b; k++) {
        const In *x = (const In*)in.x + (size_t)k * in.n * in.d, *y = (const In*)in.y + (size_t)k * in.m * in.d;
        begin(item, given, k, in.n, in.m, epsilon);
        cosine_cost<Float>(item, desk, x, y, in.n, in.m, in.d);
        bracket(item, f + (size_t)k * in.n, g + (size_t)k * in.m, in.n, in.m, epsilon, lower + k, upper + k);
      }
    }
  }
  return failed ? 1 : 0;
}

template <class T>
double rate(int threads) {  // of the inner loop on what stays in the first cache, operations a second
  constexpr int steps = 128, rows = ROWS * 4;
  double best = 0;
  for (int attempt = 0; attempt < 5; attempt++) {
    double seconds = 0;
    const int repeats = 4000;
#pragma omp parallel num_threads(threads)
    {
      Space space;
      space.start(4 * (steps * PANEL + rows * steps) + 4096);
      typename T::unit* panel = space.take<typename T::unit>(steps * PANEL);
      typename T::unit* a = space.take<typename T::unit>(rows * steps);
      std::memset(space.memory, 0, space.size);
      v16 kept{};
#pragma omp barrier
      double start = omp_get_wtime();
      for (int k = 0; k < repeats; k++) {
        multiply<T>(a, steps, 1, rows, panel, steps, PANEL / 16, [&](int, int, const v16* s, auto width) {
          for (int w = 0; w < width; w++) kept += s[w];
        });
        a[k % 64] = (typename T::unit)kept[0];
      }
      double spent = omp_get_wtime() - start;
#pragma omp critical
      seconds = std::max(seconds, spent);
    }
    best = std::max(best, 2.0 * T::STEPS * steps * PANEL * rows * repeats * threads / seconds);
  }
  return best;
}

}  // namespace

// ------------------------------------------------------------------------------------------ entry points

extern "C" {

enum { NO_MEMORY = 1, NO_INSTRUCTION = 2 };

int avalign_has_bf16() {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}

// half_in: the features (and gradients) are bfloat16; half_products: so are the products' factors.
int avalign_from_features(const void* x, const void* y, int b, int n, int m, int d, int half_in, int half_products,
                          const float* source, const float* target, const float* start, float epsilon, int rounds,
                          float tolerance, const float* upstream, float* value, float* f, float* g, float* error,
                          int64_t* made, void* slope_x, void* slope_y, int threads) {
  Features in{x, y, b, n, m, d};
  Marginals given{source, target, start};
  Settings settings{epsilon, rounds, tolerance};
  Answer out{value, f, g, error, made};
  Gradients slopes{upstream, slope_x, slope_y};
  if (half_products) {
#ifdef __AVX512BF16__
    return half_in ? from_features<Half, bf16>(in, given, settings, out, slopes, threads)
                   : from_features<Half, float>(in, given, settings, out, slopes, threads);
#else
    return NO_INSTRUCTION;
#endif
  }
  return half_in ? from_features<Float, bf16>(in, given, settings, out, slopes, threads)
                 : from_features<Float, float>(in, given, settings, out, slopes, threads);
}

int avalign_from_cost(const float* cost, int b, int n, int m, const float* source, const float* target,
                      const float* start, float epsilon, int rounds, float tolerance, float* value, float* f, float* g,
                      float* error, int64_t* made, int threads) {
  Marginals given{source, target, start};
  Settings settings{epsilon, rounds, tolerance};
  Answer out{value, f, g, error, made};
  bool failed = false;
#pragma omp parallel num_threads(threads)
  {
    Space space;
    space.start(Item::bytes(n, m));
    if (!space.memory) {
#pragma omp atomic write
      failed = true;
    } else {
      Item item;
      item.make(space, n, m);
#pragma omp for schedule(dynamic, 1)
      for (int k = 0; k < b; k++) {
        begin(item, given, k, n, m, epsilon);
        take_cost(item, cost + (size_t)k * n * m, n, m);
        answer(item, item.solve(settings, start != nullptr), settings, out, k, n, m, true);
      }
    }
  }
  return failed ? NO_MEMORY : 0;
}

int avalign_bracket_from_features(const void* x, const void* y, int b, int n, int m, int d, int half_in,
                                  const float* source, const float* target, const float* f, const float* g,
                                  float epsilon, float* lower, float* upper, int threads) {
  Features in{x, y, b, n, m, d};
  Marginals given{source, target, nullptr};
  return half_in ? bracket_from_features<bf16>(in, given, f, g, epsilon, lower, upper, threads)
                 : bracket_from_features<float>(in, given, f, g, epsilon, lower, upper, threads);
}

int avalign_bracket_from_cost(const float* cost, int b, int n, int m, const float* source, const float* target,
                              const float* f, const float* g, float epsilon, float* lower, float* upper, int threads) {
  Marginals given{source, target, nullptr};
  bool failed = false;
#pragma omp parallel num_threads(threads)
  {
    Space space;
    space.start(Item::bytes(n, m));
    if (!space.memory) {
#pragma omp atomic write
      failed = true;
    } else {
      Item item;
      item.make(space, n, m);
#pragma omp for schedule(dynamic, 1)
      for (int k = 0; k < b; k++) {
        begin(item, given, k, n, m, epsilon);
        take_cost(item, cost + (size_t)k * n * m, n, m);
        bracket(item, f + (size_t)k * n, g + (size_t)k * m, n, m, epsilon, lower + k, upper + k);
      }
    }
  }
  return failed ? NO_MEMORY : 0;
}

double avalign_product_rate(int half, int threads) {
#ifdef __AVX512BF16__
  if (half) return rate<Half>(threads);
#endif
  return half ? 0 : rate<Float>(threads);
}

}  // extern "C"
