// Bounds of the exact optimum.

#pragma once

#include "item.hpp"

namespace {

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

}  // namespace
