// One problem and its iterations: those of avalign/ot/iterations.py, step for step. What differs is the precision:
// float32, sums of the value in double.

#pragma once

#include <cmath>
#include "vectors.hpp"

namespace {

struct Settings {
  float epsilon;
  int iterations;
  float tolerance;  // 0: exactly `iterations` plain iterations
};

constexpr int WINDOW = 6, ROUGH_ITERATIONS = 60;
constexpr float MOST_SCALING = 30, FIRST_RELAXATION = 1.5f, MOST_RELAXATION = 1.97f, GROWTH = 2;
constexpr int RISES = 5;
constexpr float EASY_REACH = 20, ROUGH_ERROR = 0.03f, NOTHING = -1e30f;

// Sums of 16 rows of a matrix times a vector: k[r][j] y[j].
inline v16 sums_of_rows(const float* k, size_t row, int m, const float* y) {
  v16 row_sums[16];
  for (int half = 0; half < 16; half += 8) {
    v16 s[8] = {};
    const float* rows = k + half * row;
    for (int j = 0; j < m; j += 16) {
      v16 factor = load(y + j);
#pragma GCC unroll 8
      for (int r = 0; r < 8; r++) s[r] += load(rows + r * row + j) * factor;
    }
    for (int r = 0; r < 8; r++) row_sums[half + r] = s[r];
  }
  return sums(row_sums);
}

// 16 rows, each times its factor x[r], added to the 16 W columns of w from j on.
template <int W>
inline void add_rows(const float* k, size_t row, const float* x, float* w, int j) {
  v16 even[W], odd[W];
  for (int z = 0; z < W; z++) even[z] = load(w + j + 16 * z), odd[z] = v16{};
#pragma GCC unroll 8
  for (int r = 0; r < 16; r += 2) {
    v16 one = all(x[r]), two = all(x[r + 1]);
#pragma GCC unroll 4
    for (int z = 0; z < W; z++) {
      even[z] += load(k + r * row + j + 16 * z) * one;
      odd[z] += load(k + (r + 1) * row + j + 16 * z) * two;
    }
  }
  for (int z = 0; z < W; z++) store(w + j + 16 * z, even[z] + odd[z]);
}

inline void add_rows(const float* k, size_t row, int m, const float* x, float* w) {
  int j = 0;
  for (; j + 64 <= m; j += 64) add_rows<4>(k, row, x, w, j);
  for (; j < m; j += 16) add_rows<1>(k, row, x, w, j);
}

struct Space {  // of one thread, reused item after item
  char* memory = nullptr;
  size_t size = 0, used = 0;
  ~Space() { std::free(memory); }
  bool start(size_t bytes) {
    size = (bytes + 4095) / 4096 * 4096;
    memory = (char*)std::aligned_alloc(64, size);
    return memory != nullptr;
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
  static Item in(Space& space, int rows, int columns) {
    Item item;
    item.make(space, rows, columns);
    return item;
  }
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
      v16 r = sums_of_rows(kernel + i * row, row, m, v), mass = load(a + i);
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
      add_rows(kernel + i * row, row, m, u + i, w);
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

  float column_error() {
    double s = 0;
    for (int j = 0; j < m; j += 16) s += sum(magnitude(load(v + j) * load(w + j) - load(b + j)));
    return (float)s;
  }

  void step() {
    std::swap(q, next_q);
    std::swap(v, next_v);
  }

  // `count` iterations, the last one with exact rows. Afterwards p, q (u, v) are the plan, next_q, next_v what the
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
    int iterations;
    float error;
  };

  // Iterations at one epsilon from psi. Afterwards phi + p, psi + q are the potentials and u, v the scalings.
  Made run(float epsilon, int iterations, float tolerance, bool relax) {
    float inverse = 1 / epsilon;
    absorb(inverse, true);
    float relaxation = relax ? FIRST_RELAXATION : 1, most = MOST_RELAXATION;
    float before = INFINITY, best = INFINITY, error = INFINITY;
    int rises = 0;
    for (int done = 0;;) {
      int count = std::min(WINDOW, iterations - done);
      if (done == 0 && relax) first_rows();
      error = window(count, relaxation, inverse);
      done += count;
      if (!(error > tolerance) || done >= iterations) return {done, error};
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

  // From psi in units of the cost (start) to the plan. Returns all iterations made.
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
        Made rough = run(scale, ROUGH_ITERATIONS, ROUGH_ERROR, true);
        made.iterations += rough.iterations;
        for (int j = 0; j < m; j++) psi[j] = (psi[j] + q[j]) * 2;  // in units of the next epsilon
        scale /= 2;
      }
    }
    bool relax = settings.tolerance > 0;
    Made last = run(epsilon, settings.iterations, relax ? settings.tolerance : -1, relax);
    return {made.iterations + last.iterations, last.error};
  }
};

}  // namespace
