// From features to a cost, and from a plan to the gradients of both sets of features.

#pragma once

#include "features.hpp"
#include "item.hpp"

namespace {

struct Features {
  const void *x, *y;  // (b, n, d), (b, m, d), contiguous
  int b, n, m, d;
};
struct Marginals {
  const float *source, *target, *start;  // (b, n), (b, m), (b, m) in units of the cost or null
};
struct Answer {
  float *value, *f, *g, *error;  // (b,), (b, n), (b, m), (b,)
  int64_t* iterations;               // (b,)
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
                    for (int w = 0; w < width; w++)
                      stream(out + place + 16 * w, own * load(x + place + 16 * w) - others * dots[w]);
                  } else {
                    for (int w = 0; w < width; w++)
                      store(out + place + 16 * w, own * load(x + place + 16 * w) - others * dots[w]);
                  }
                });
  }
}

}  // namespace
