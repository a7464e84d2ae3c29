// Many items, a thread an item.

#pragma once

#include <omp.h>

#include <atomic>

#include "item.hpp"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

enum { NO_MEMORY = 1, NO_INSTRUCTION = 2 };

// work(desk, k) for each of `count` items, a thread an item, with what make(space) lays out for a thread. A
// thread that finds no memory leaves its share to the others.
template <class Make, class Work>
int each_item(int count, int threads, size_t bytes, Make make, Work work) {
  std::atomic<int> next{0};
#pragma omp parallel num_threads(std::max(1, std::min(threads, count)))
  {
    Space space;
    if (space.start(bytes)) {
      auto desk = make(space);
      for (int k; (k = next.fetch_add(1)) < count;) work(desk, k);
    }
#ifdef __AVX512F__
    _mm_sfence();  // gradients went past the cache
#endif
  }
  return next < count ? NO_MEMORY : 0;
}

}  // namespace
