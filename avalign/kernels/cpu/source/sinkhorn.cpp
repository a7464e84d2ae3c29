// Entropic optimal transport on a CPU, many small problems at once, a thread an item.
//
// From features: norms, cosine cost by a blocked product, Sinkhorn's iterations on the kernel, and the gradients
// to both sets of features by two more products. Features are read once while they are in the cache, the cost
// never leaves it, and nothing is kept of a round. From a cost: the iterations alone.
//
// The iterations are those of avalign/ot/iterations.py, step for step: windows, relaxation, larger epsilons first,
// logarithms where the kernel's range ends. What differs is the precision: float32, sums of the value in double.
//
// Vectors are the compiler's own (16 floats), so that the same source serves AVX-512, AVX2 and NEON; only the
// bfloat16 product is an instruction of its own.

#include "pairwise.hpp"
#include "bracket.hpp"
#include "gradients.hpp"

namespace {

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
  out.iterations[k] = made.iterations;
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

template <class T>
struct Place {
  Item item;
  Desk<T> desk;
  Place(Space& space, const Features& in) : item(Item::in(space, in.n, in.m)) { desk.make(space, in); }
};

template <class T, class In>
int from_features(const Features& in, const Marginals& given, const Settings& settings, const Answer& out,
                  const Gradients& slopes, int threads) {
  auto work = [&](Place<T>& place, int k) {
    Item& item = place.item;
    Desk<T>& desk = place.desk;
    const In *x = (const In*)in.x + (size_t)k * in.n * in.d, *y = (const In*)in.y + (size_t)k * in.m * in.d;
    begin(item, given, k, in.n, in.m, settings.epsilon);
    cosine_cost<T>(item, desk, x, y, in.n, in.m, in.d);
    bool valid = true;
    for (int i = 0; i < item.n; i++) valid &= std::isfinite(desk.norm_x[i]);
    for (int j = 0; j < item.m; j++) valid &= std::isfinite(desk.norm_y[j]);
    Item::Made made{0, 0};
    if (valid) made = item.solve(settings, given.start != nullptr);
    answer(item, made, settings, out, k, in.n, in.m, valid);
    if (!valid || !slopes.x) return;
    weigh(item, desk);
    Operand plain, turned;
    operands(item, desk, plain, turned);
    gradient<T>(desk.plan, plain, x, in.n, item.a, desk.share_x, y, in.m, item.b, in.d, slopes.upstream[k], desk.panel,
                (In*)slopes.x + (size_t)k * in.n * in.d);
    gradient<T>(desk.turned, turned, y, in.m, item.b, desk.share_y, x, in.n, item.a, in.d, slopes.upstream[k],
                desk.panel, (In*)slopes.y + (size_t)k * in.m * in.d);
  };
  return each_item(in.b, threads, Item::bytes(in.n, in.m) + Desk<T>::bytes(in),
                   [&](Space& space) { return Place<T>(space, in); }, work);
}

template <class In>
int bracket_from_features(const Features& in, const Marginals& given, const float* f, const float* g, float epsilon,
                          float* lower, float* upper, int threads) {
  auto work = [&](Place<Float>& place, int k) {
    const In *x = (const In*)in.x + (size_t)k * in.n * in.d, *y = (const In*)in.y + (size_t)k * in.m * in.d;
    begin(place.item, given, k, in.n, in.m, epsilon);
    cosine_cost<Float>(place.item, place.desk, x, y, in.n, in.m, in.d);
    bracket(place.item, f + (size_t)k * in.n, g + (size_t)k * in.m, in.n, in.m, epsilon, lower + k, upper + k);
  };
  return each_item(in.b, threads, Item::bytes(in.n, in.m) + Desk<Float>::bytes(in),
                   [&](Space& space) { return Place<Float>(space, in); }, work);
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

extern "C" {

int avalign_has_bf16() {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}

// half_in: the features (and gradients) are bfloat16; half_products: so are the products' factors.
int avalign_from_features(const void* x, const void* y, int b, int n, int m, int d, int half_in, int half_products,
                          const float* source, const float* target, const float* start, float epsilon, int iterations,
                          float tolerance, const float* upstream, float* value, float* f, float* g, float* error,
                          int64_t* made, void* slope_x, void* slope_y, int threads) {
  Features in{x, y, b, n, m, d};
  Marginals given{source, target, start};
  Settings settings{epsilon, iterations, tolerance};
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
                      const float* start, float epsilon, int iterations, float tolerance, float* value, float* f, float* g,
                      float* error, int64_t* made, int threads) {
  Marginals given{source, target, start};
  Settings settings{epsilon, iterations, tolerance};
  Answer out{value, f, g, error, made};
  auto work = [&](Item& item, int k) {
    begin(item, given, k, n, m, epsilon);
    take_cost(item, cost + (size_t)k * n * m, n, m);
    answer(item, item.solve(settings, start != nullptr), settings, out, k, n, m, true);
  };
  return each_item(b, threads, Item::bytes(n, m), [&](Space& space) { return Item::in(space, n, m); }, work);
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
  auto work = [&](Item& item, int k) {
    begin(item, given, k, n, m, epsilon);
    take_cost(item, cost + (size_t)k * n * m, n, m);
    bracket(item, f + (size_t)k * n, g + (size_t)k * m, n, m, epsilon, lower + k, upper + k);
  };
  return each_item(b, threads, Item::bytes(n, m), [&](Space& space) { return Item::in(space, n, m); }, work);
}

double avalign_product_rate(int half, int threads) {
#ifdef __AVX512BF16__
  if (half) return rate<Half>(threads);
#endif
  return half ? 0 : rate<Float>(threads);
}

}  // extern "C"
