// Every set of rows with every set of columns, from their similarities: values and potentials, then plans.
//
// The similarities of the tokens of c column sets stand side by side in one matrix, as one large product makes them;
// a pair is a block of it. Marginals are held, missed at a price, or free, each side by itself: with the price rho,
// the exponent rho / (rho + epsilon) is 1, between, or 0.

#pragma once

#include <cmath>
#include <limits>
#include "threads.hpp"

namespace {

constexpr float MOST_SHIFT = 1e5f;  // in units of epsilon, as there

struct Relaxed {  // what a side's marginal costs to miss
  float rho, exponent;
  Relaxed(float price, float epsilon) : rho(price), exponent(std::isinf(price) ? 1 : price / (price + epsilon)) {}
  double paid(double potential) const {  // by a unit of marginal
    if (rho == 0) return 0;
    return std::isinf(rho) ? potential : -rho * std::expm1(-potential / rho);
  }
  // The scaling that answers a sum, and 0 where there is no mass. Sums outside a float's range are told.
  v16 answer(v16 sum, v16 mass, i16& bad) const {
    i16 real = mass > 0;
    bad |= real & ~((sum > 1e-37f) & (sum < 1e37f));
    if (exponent == 0) return real ? all(1) : v16{};
    if (exponent == 1) return real ? 1.f / sum : v16{};
    return real ? exp16(-exponent * log16(sum)) : v16{};
  }
};

struct Pair {  // of one thread, reused pair after pair
  int n, m, rows, columns;  // filled up to whole vectors, and real
  size_t row;
  float *kernel, *a, *b, *u, *v, *w, *z, *au, *bv;
  static size_t bytes(int n, int m) {
    return 4 * (size_t)up(n, 16) * Item::stride(m) + 64 * (size_t)(up(n, 16) + up(m, 16)) + 4096;
  }
  Pair(Space& space, int n_, int m_) : n(up(n_, 16)), m(up(m_, 16)), rows(n_), columns(m_), row(Item::stride(m_)) {
    kernel = space.take<float>(n * row);
    for (float** x : {&a, &u, &z, &au}) *x = space.take<float>(n);
    for (float** x : {&b, &v, &w, &bv}) *x = space.take<float>(m);
    std::memset(kernel, 0, sizeof(float) * n * row);  // what fills up carries nothing
  }
  void marginals(const float* source, const float* target) {
    for (int i = 0; i < n; i++) a[i] = i < rows ? source[i] : 0;
    for (int j = 0; j < m; j++) b[j] = j < columns ? target[j] : 0;
  }
  // exp((similarity - 1) / epsilon); 0 where a column is filled up
  void gibbs(const float* similarity, size_t width, float inverse) {
    int full = columns / 16 * 16, rest = columns - full;
    for (int i = 0; i < rows; i++) {
      const float* s = similarity + i * width;
      float* k = kernel + i * row;
      for (int j = 0; j < full; j += 16) store(k + j, exp16((load(s + j) - 1.f) * inverse));
      if (rest) {
        float last[16];
        for (int j = 0; j < 16; j++) last[j] = j < rest ? s[full + j] : -INFINITY;
        store(k + full, exp16((load(last) - 1.f) * inverse));
      }
    }
  }
  // u, z and w of v. Returns whether a sum left a float's range.
  bool rows_then_columns(const Relaxed& side) {
    i16 bad{};
    for (int j = 0; j < m; j += 16) store(bv + j, load(b + j) * load(v + j)), store(w + j, v16{});
    for (int i = 0; i < n; i += 16) {
      v16 sum_i = sums_of_rows(kernel + i * row, row, m, bv), mass = load(a + i);
      v16 scaling = side.answer(sum_i, mass, bad);
      store(z + i, sum_i);
      store(u + i, scaling);
      store(au + i, mass * scaling);
      add_rows(kernel + i * row, row, m, au + i, w);
    }
    return any(bad);
  }
};

}  // namespace

extern "C" {

// similarity (r * n, width): pair (i, j) is its block at row i * n, column j * m. source (r, n), target (c, m).
// start (r, c, m): g to begin with, or none. Out: value, error, made (r, c); f (r, c, n), g (r, c, m).
// shift: avalign/ot/pairwise_engine.py says. A pair whose sums leave a float's range has made -1, and is for the caller to solve.
int avalign_all_pairs(const float* similarity, int64_t width, int r, int c, int n, int m, const float* source,
                      const float* target, const float* start, float epsilon, float rho_source, float rho_target,
                      float shift, int iterations, float tolerance, float* value, float* f, float* g, float* error, int64_t* made,
                      int threads) {
  const Relaxed rows(rho_source, epsilon), columns(rho_target, epsilon);
  const float inverse = 1 / epsilon;
  if (shift * inverse > MOST_SHIFT) shift = 0;
  auto work = [&](Pair& pair, int k) {
    const int i = k / c, j = k % c;
    const float *a = source + (size_t)i * n, *b = target + (size_t)j * m;
    pair.marginals(a, b);
    pair.gibbs(similarity + (size_t)i * n * width + (size_t)j * m, width, inverse);
    for (int x = 0; x < pair.m; x++)
      pair.v[x] = start && x < m && b[x] > 0 ? std::exp(start[(size_t)k * m + x] * inverse) : pair.b[x] > 0;
    int done = 0;
    double off = 0;
    bool bad = false;
    while (true) {
      bad = pair.rows_then_columns(rows);
      i16 wrong{};
      v16 missed{}, carried{};
      for (int x = 0; x < pair.m; x += 16) {
        v16 sum = load(pair.w + x), mass = load(pair.b + x), old = load(pair.v + x);
        v16 next = columns.answer(sum, mass, wrong);
        missed += mass * sum * magnitude(old - next);
        carried += mass * sum * next;
        store(pair.bv + x, next);
      }
      off = (double)sum(missed) / sum(carried);
      bad |= any(wrong) || !std::isfinite(off);
      if (bad || ++done >= iterations || off <= tolerance) break;
      if (shift != 0) {
        v16 sent{};
        for (int x = 0; x < pair.n; x += 16) sent += load(pair.au + x) * load(pair.z + x);
        float factor = (float)std::exp(-shift * inverse * std::log((double)sum(sent) / sum(carried)));
        for (int x = 0; x < pair.m; x += 16) store(pair.bv + x, load(pair.bv + x) * factor);
      }
      std::swap(pair.v, pair.bv);
    }
    double total = 0, carried = 0, mass_a = 0, mass_b = 0;
    for (int x = 0; x < n; x++) {
      double potential = a[x] > 0 && !bad ? epsilon * std::log(pair.u[x]) : 0;
      f[(size_t)k * n + x] = (float)potential;
      total += a[x] * rows.paid(potential);
      carried += (double)pair.au[x] * pair.z[x];
      mass_a += a[x];
    }
    for (int x = 0; x < m; x++) {
      double potential = b[x] > 0 && !bad ? epsilon * std::log(pair.v[x]) : 0;
      g[(size_t)k * m + x] = (float)potential;
      total += b[x] * columns.paid(potential);
      mass_b += b[x];
    }
    value[k] = bad ? std::numeric_limits<float>::quiet_NaN() : (float)(total - epsilon * (carried - mass_a * mass_b));
    error[k] = bad ? std::numeric_limits<float>::infinity() : (float)off;
    made[k] = bad ? -1 : done;
  };
  return each_item(r * c, threads, Pair::bytes(n, m), [&](Space& space) { return Pair(space, n, m); }, work);
}

// Plans times `weight` (r, c), written where the similarities of their pairs stand: in place, or to `plan` of the
// same layout. carried_rows (r, c, n), carried_columns (r, c, m): the sums of the plans themselves, where wanted.
int avalign_all_pairs_plan(const float* similarity, float* plan, int64_t width, int r, int c, int n, int m,
                           const float* source, const float* target, const float* f, const float* g,
                           const float* weight, float epsilon, float* carried_rows, float* carried_columns, int threads) {
  const float inverse = 1 / epsilon;
  auto work = [&](Pair& pair, int k) {
    const int i = k / c, j = k % c;
    const size_t at = (size_t)i * n * width + (size_t)j * m;
    const float scale = weight[k];
    float *cells = carried_columns ? carried_columns + (size_t)k * m : nullptr;
    if (cells) std::memset(cells, 0, sizeof(float) * m);
    for (int y = 0; y < m; y++) {
      float mass = target[(size_t)j * m + y];
      pair.v[y] = mass > 0 ? g[(size_t)k * m + y] * inverse + std::log(mass) : NOTHING;
    }
    for (int x = 0; x < n; x++) {
      const float mass = source[(size_t)i * n + x], *s = similarity + at + x * width;
      const float shift = mass > 0 ? f[(size_t)k * n + x] * inverse + std::log(mass) : NOTHING;
      float* out = plan + at + x * width;
      v16 row{};
      int y = 0;
      for (; y + 16 <= m; y += 16) {
        v16 t = exp16((load(s + y) - 1.f) * inverse + load(pair.v + y) + shift);
        row += t;
        if (cells) store(cells + y, load(cells + y) + t);
        store(out + y, t * scale);
      }
      if (y < m) {
        float last[16];
        for (int z = 0; z < 16; z++) last[z] = y + z < m ? (s[y + z] - 1.f) * inverse + pair.v[y + z] + shift : NOTHING;
        v16 t = exp16(load(last));
        row += t;
        for (int z = 0; y + z < m; z++) {
          if (cells) cells[y + z] += t[z];
          out[y + z] = t[z] * scale;
        }
      }
      if (carried_rows) carried_rows[(size_t)k * n + x] = sum(row);
    }
  };
  return each_item(r * c, threads, Pair::bytes(n, m), [&](Space& space) { return Pair(space, n, m); }, work);
}

}  // extern "C"
