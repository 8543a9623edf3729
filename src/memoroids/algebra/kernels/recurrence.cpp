// The linear recurrence h_t = decay_t h_{t-1} + x_t with resets, and its reverse pass, on the CPU: every input is read
// once and every output written once. Called by XLA through its foreign function interface; see native.py.
//
// A row holds `width` real numbers; a complex number is an adjacent (re, im) pair. Each row depends on the one before,
// so work is divided over sequences and channels or, if rows are too narrow for that, segments of time (see `narrow`).

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kInline = 1 << 15;      // for fewer numbers, waking a thread costs more than it saves
constexpr int64_t kSegmentAbove = 1 << 12;  // narrow rows: shorter sequences are not split into segments
constexpr int kLanes = 8;                 // segments advanced together, to hide the latency of one dependency chain
constexpr int64_t kMaxThreads = 256;      // more would not be kept busy, and `narrow` needs a step for every segment
static_assert(kMaxThreads * kLanes <= kSegmentAbove);
constexpr int64_t kAhead = 8;             // steps between prefetching a row and reading it
constexpr int64_t kFlush = 256;           // steps summed in the precision of the state before they are added to a double

struct BFloat16 {
  uint16_t bits;
  operator float() const {
    uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
};

template <typename R>
struct Vector {
  static constexpr int kSize = 32 / sizeof(R);
  typedef R type __attribute__((vector_size(32)));
};

template <typename V, typename R>
V load(const R* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// From (re, im) pairs, (re, re) in `real` and (-im, im) in `imag`; `swapped` gives (im, re).
template <typename R, typename V>
void complex_factor(V a, V* real, V* imag) {
  if constexpr (sizeof(R) == 4) {
    const V sign = {-1, 1, -1, 1, -1, 1, -1, 1};
    *real = __builtin_shufflevector(a, a, 0, 0, 2, 2, 4, 4, 6, 6);
    *imag = __builtin_shufflevector(a, a, 1, 1, 3, 3, 5, 5, 7, 7) * sign;
  } else {
    const V sign = {-1, 1, -1, 1};
    *real = __builtin_shufflevector(a, a, 0, 0, 2, 2);
    *imag = __builtin_shufflevector(a, a, 1, 1, 3, 3) * sign;
  }
}

template <typename R, typename V>
V swapped(V h) {
  if constexpr (sizeof(R) == 4) {
    return __builtin_shufflevector(h, h, 1, 0, 3, 2, 5, 4, 7, 6);
  } else {
    return __builtin_shufflevector(h, h, 1, 0, 3, 2);
  }
}

// out = a * h + x over `width` real numbers, as complex numbers if kComplex; out may alias x.
template <bool kComplex, typename R, typename In>
void multiply_add(R* out, const R* a, const R* h, const In* x, int64_t width) {
  if constexpr (!kComplex) {
#pragma GCC ivdep  // only `out` is written, and if it aliases another row, it does so at the same index
    for (int64_t j = 0; j < width; ++j) out[j] = a[j] * h[j] + static_cast<R>(x[j]);
  } else {
    using V = typename Vector<R>::type;
    constexpr int n = Vector<R>::kSize;
    int64_t j = 0;
    for (; j + n <= width; j += n) {
      V real, imag, state = load<V>(h + j);
      complex_factor<R>(load<V>(a + j), &real, &imag);
      V value = real * state + (imag * swapped<R>(state) + load<V>(x + j));
      std::memcpy(out + j, &value, sizeof value);
    }
    for (; j < width; j += 2) {
      const R re = a[j] * h[j] - a[j + 1] * h[j + 1] + x[j];
      const R im = a[j] * h[j + 1] + a[j + 1] * h[j] + x[j + 1];
      out[j] = re, out[j + 1] = im;
    }
  }
}

// Prefetches a row that is read kAhead steps from now: half rows are too short for the hardware prefetcher to detect
// the stream. The processor ignores a prefetch past either end of an array.
template <typename R>
void prefetch(const R* row, int64_t width) {
  for (int64_t j = 0; j < width; j += 64 / sizeof(R)) __builtin_prefetch(row + j);
}

struct Shape {
  int64_t sequences, steps, width;  // width in real numbers
};

int64_t capped(int64_t threads) { return std::clamp<int64_t>(threads, 1, kMaxThreads); }

int64_t threads_of(ffi::ThreadPool& pool) { return capped(pool.num_threads()); }

// Runs task(0) … task(count - 1) on the threads of the pool and on the calling one. The caller waits only for tasks
// that another thread has already started, so handlers that occupy the whole pool cannot deadlock.
template <typename F>
void parallel(ffi::ThreadPool& pool, int64_t count, F task) {
  struct Shared {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t done = 0;
  };
  if (count == 1) return task(0);
  auto shared = std::make_shared<Shared>();
  auto work = [shared, count, &task] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      task(i);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == count) shared->finished.notify_all();
    }
  };
  for (int64_t helper = 1; helper < std::min<int64_t>(count, threads_of(pool)); ++helper) {
    pool.Schedule(decltype(work)(work));
  }
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == count; });
}

// Divides sequences and blocks of channels over the threads: body(sequence, first real number, how many).
template <typename F>
void over_channels(ffi::ThreadPool& pool, const Shape& s, F body) {
  const int64_t threads = s.sequences * s.steps * s.width < kInline ? 1 : threads_of(pool);
  const int64_t wanted = (threads + s.sequences - 1) / std::max<int64_t>(1, s.sequences);
  const int64_t block = std::max<int64_t>(32, ((s.width + wanted - 1) / wanted + 31) / 32 * 32);
  const int64_t blocks = std::max<int64_t>(1, (s.width + block - 1) / block);
  parallel(pool, threads == 1 ? 1 : s.sequences * blocks, [&](int64_t unit) {
    for (int64_t u = unit; u < (threads == 1 ? s.sequences * blocks : unit + 1); ++u) {
      const int64_t from = u % blocks * block;
      body(u / blocks, from, std::min(block, s.width - from));
    }
  });
}

template <bool kComplex, typename R, typename In>
void wide(ffi::ThreadPool& pool, const Shape& s, bool reverse, bool varying, const R* decay, const In* x,
          const bool* reset, const R* initial, R* h) {
  over_channels(pool, s, [=](int64_t n, int64_t from, int64_t width) {
    const int64_t rows = n * s.steps;
    const R* previous = initial + n * s.width + from;
    for (int64_t i = 0; i < s.steps; ++i) {
      const int64_t t = rows + (reverse ? s.steps - 1 - i : i), at = t * s.width + from;
      prefetch(x + at + (reverse ? -kAhead : kAhead) * s.width, width);
      if (reset[t]) {
        for (int64_t j = 0; j < width; ++j) h[at + j] = static_cast<R>(x[at + j]);
      } else {
        multiply_add<kComplex>(h + at, decay + (varying ? at : n * s.width + from), previous, x + at, width);
      }
      previous = h + at;
    }
  });
}

// One real number per step: time is split into segments that are scanned from 0 in parallel; the state that enters a
// segment is added afterwards, decayed, up to the segment's first reset.
template <typename R, typename In>
void narrow(ffi::ThreadPool& pool, const Shape& s, bool reverse, R decay, const In* x, const bool* reset, R initial,
            R* h) {
  const int64_t groups = threads_of(pool), segments = groups * kLanes;
  const int64_t length = s.steps / segments;  // the last segment also gets the remainder
  auto slot = [&](int64_t i) { return reverse ? s.steps - 1 - i : i; };
  const int64_t direction = reverse ? -1 : 1;
  parallel(pool, groups, [&](int64_t group) {
    R state[kLanes] = {};
    int64_t at[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) at[lane] = slot((group * kLanes + lane) * length);
    if (group == 0) state[0] = initial;
    for (int64_t i = 0; i < length; ++i) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t t = at[lane] + direction * i;
        state[lane] = (reset[t] ? R(0) : decay * state[lane]) + static_cast<R>(x[t]);
        h[t] = state[lane];
      }
    }
  });
  for (int64_t i = segments * length; i < s.steps; ++i) {
    const int64_t t = slot(i);
    h[t] = (reset[t] ? R(0) : decay * h[t - direction]) + static_cast<R>(x[t]);
  }
  const bool shrinks = std::abs(decay) <= 1;
  for (int64_t segment = 1; segment < segments; ++segment) {
    R carried = h[slot(segment * length - 1)];
    const int64_t end = segment + 1 == segments ? s.steps : (segment + 1) * length;
    for (int64_t i = segment * length; i < end && !reset[slot(i)]; ++i) {
      carried *= decay;
      // False for a NaN, which has to propagate to the end of its episode.
      if (shrinks && std::abs(carried) < std::numeric_limits<R>::min()) break;
      h[slot(i)] += carried;
    }
  }
}

template <bool kComplex, typename R, typename In>
void forward(ffi::ThreadPool& pool, const Shape& s, bool reverse, bool varying, ffi::AnyBuffer decay, ffi::AnyBuffer x,
             const bool* reset, ffi::AnyBuffer initial, ffi::AnyBuffer h) {
  auto a = static_cast<const R*>(decay.untyped_data());
  auto in = static_cast<const In*>(x.untyped_data());
  auto start = static_cast<const R*>(initial.untyped_data());
  auto out = static_cast<R*>(h.untyped_data());
  if constexpr (!kComplex) {
    if (s.width == 1 && !varying && s.steps >= kSegmentAbove) {
      for (int64_t n = 0; n < s.sequences; ++n) {
        const int64_t at = n * s.steps;
        narrow(pool, s, reverse, a[n], in + at, reset + at, start[n], out + at);
      }
      return;
    }
  }
  wide<kComplex>(pool, s, reverse, varying, a, in, reset, start, out);
}

// g_t = h̄_t + decay_{t+1} g_{t+1}, or h̄_t if t+1 is reset, and g_t h_{t-1}, or 0 if t is reset: its sum over time, or
// every row if the decay varies. t+1 is the next step in the direction of the recurrence.
template <bool kComplex, typename R>
void backward(ffi::ThreadPool& pool, const Shape& s, bool reverse, bool varying, const R* decay, const bool* reset,
              const R* h_bar, const R* h, const R* initial, R* g, R* decay_bar) {
  over_channels(pool, s, [=](int64_t n, int64_t from, int64_t width) {
    const int64_t rows = n * s.steps, own = n * s.width + from;
    std::vector<R> zeros(varying ? width : 0), part(varying ? 0 : width);
    std::vector<double> total(varying ? 0 : width);
    auto flush = [&] {
      for (int64_t j = 0; j < width; ++j) total[j] += part[j], part[j] = 0;
    };
    int64_t following = 0;
    for (int64_t i = s.steps - 1; i >= 0; --i) {
      const int64_t t = rows + (reverse ? s.steps - 1 - i : i), at = t * s.width + from;
      prefetch(h_bar + at + (reverse ? kAhead : -kAhead) * s.width, width);
      prefetch(h + at + (reverse ? kAhead : -kAhead) * s.width, width);
      if (i == s.steps - 1 || reset[following]) {
        std::memcpy(g + at, h_bar + at, width * sizeof(R));
      } else {
        const int64_t next = following * s.width + from;
        multiply_add<kComplex>(g + at, decay + (varying ? next : own), g + next, h_bar + at, width);
      }
      const R* previous = i == 0 ? initial + own : h + (reverse ? at + s.width : at - s.width);
      if (varying) {
        if (reset[t]) {
          std::memset(decay_bar + at, 0, width * sizeof(R));
        } else {
          multiply_add<kComplex>(decay_bar + at, g + at, previous, zeros.data(), width);
        }
      } else {
        if (!reset[t]) multiply_add<kComplex>(part.data(), g + at, previous, part.data(), width);
        if (i % kFlush == 0) flush();
      }
      following = t;
    }
    if (!varying) {
      for (int64_t j = 0; j < width; ++j) decay_bar[own + j] = static_cast<R>(total[j]);
    }
  });
}

bool is_complex(ffi::DataType type) { return type == ffi::DataType::C64 || type == ffi::DataType::C128; }

// x is (…, T, C): all axes before the last two are batch axes.
Shape shape_of(ffi::AnyBuffer x) {
  auto dims = x.dimensions();
  Shape s{1, dims[dims.size() - 2], dims[dims.size() - 1] * (is_complex(x.element_type()) ? 2 : 1)};
  for (size_t axis = 0; axis + 2 < dims.size(); ++axis) s.sequences *= dims[axis];
  return s;
}

ffi::Error unserved() { return ffi::Error::InvalidArgument("memoroids: dtype not supported by the native kernel"); }

using Dims = std::vector<int64_t>;

Dims dims_of(ffi::AnyBuffer buffer) { return Dims(buffer.dimensions().begin(), buffer.dimensions().end()); }

// The dimensions without the axis that is `place` from the end.
Dims without(Dims dims, size_t place) {
  dims.erase(dims.end() - place);
  return dims;
}

// What a buffer must be, so that no handler reads or writes out of bounds.
struct Expected {
  const char* name;
  ffi::AnyBuffer buffer;
  Dims dims;
  ffi::DataType type;
};

ffi::Error check(std::initializer_list<Expected> buffers) {
  for (const Expected& each : buffers) {
    if (each.buffer.element_type() != each.type) {
      return ffi::Error::InvalidArgument(std::string("memoroids: the dtype of ") + each.name + " does not fit");
    }
    if (dims_of(each.buffer) != each.dims) {
      return ffi::Error::InvalidArgument(std::string("memoroids: the shape of ") + each.name + " does not fit");
    }
  }
  return ffi::Error::Success();
}

ffi::Error too_few_axes(const char* name) {
  return ffi::Error::InvalidArgument(std::string("memoroids: ") + name + " needs an axis of time and one of channels");
}

ffi::Error run_forward(ffi::ThreadPool pool, ffi::AnyBuffer decay, ffi::AnyBuffer x, ffi::AnyBuffer reset, ffi::AnyBuffer initial,
                       ffi::Result<ffi::AnyBuffer> h, int32_t reverse, int32_t varying) {
  const Dims dims = dims_of(x);
  if (dims.size() < 2) return too_few_axes("x");
  const ffi::DataType type = x.element_type() == ffi::DataType::BF16 ? ffi::DataType::F32 : x.element_type();
  const ffi::Error wrong = check({{"decay", decay, varying ? dims : without(dims, 2), type},
                                  {"reset", reset, without(dims, 1), ffi::DataType::PRED},
                                  {"initial", initial, without(dims, 2), type},
                                  {"h", *h, dims, type}});
  if (wrong.failure()) return wrong;
  const Shape s = shape_of(x);
  auto flags = static_cast<const bool*>(reset.untyped_data());
  switch (x.element_type()) {
    case ffi::DataType::F32: forward<false, float, float>(pool, s, reverse, varying, decay, x, flags, initial, *h); break;
    case ffi::DataType::F64: forward<false, double, double>(pool, s, reverse, varying, decay, x, flags, initial, *h); break;
    case ffi::DataType::BF16: forward<false, float, BFloat16>(pool, s, reverse, varying, decay, x, flags, initial, *h); break;
    case ffi::DataType::C64: forward<true, float, float>(pool, s, reverse, varying, decay, x, flags, initial, *h); break;
    case ffi::DataType::C128: forward<true, double, double>(pool, s, reverse, varying, decay, x, flags, initial, *h); break;
    default: return unserved();
  }
  return ffi::Error::Success();
}

template <bool kComplex, typename R>
void backward(ffi::ThreadPool& pool, bool reverse, bool varying, ffi::AnyBuffer decay, const bool* reset,
              ffi::AnyBuffer h_bar, ffi::AnyBuffer h, ffi::AnyBuffer initial, ffi::AnyBuffer g,
              ffi::AnyBuffer decay_bar) {
  auto real = [](ffi::AnyBuffer buffer) { return static_cast<R*>(buffer.untyped_data()); };
  backward<kComplex, R>(pool, shape_of(h), reverse, varying, real(decay), reset, real(h_bar), real(h), real(initial),
                        real(g), real(decay_bar));
}

ffi::Error run_backward(ffi::ThreadPool pool, ffi::AnyBuffer decay, ffi::AnyBuffer reset, ffi::AnyBuffer h_bar, ffi::AnyBuffer h,
                        ffi::AnyBuffer initial, ffi::Result<ffi::AnyBuffer> g,
                        ffi::Result<ffi::AnyBuffer> decay_bar, int32_t reverse, int32_t varying) {
  const Dims dims = dims_of(h);
  if (dims.size() < 2) return too_few_axes("h");
  const ffi::DataType type = h.element_type();
  const Dims of_decay = varying ? dims : without(dims, 2);
  const ffi::Error wrong = check({{"decay", decay, of_decay, type},
                                  {"reset", reset, without(dims, 1), ffi::DataType::PRED},
                                  {"h_bar", h_bar, dims, type},
                                  {"initial", initial, without(dims, 2), type},
                                  {"g", *g, dims, type},
                                  {"decay_bar", *decay_bar, of_decay, type}});
  if (wrong.failure()) return wrong;
  auto flags = static_cast<const bool*>(reset.untyped_data());
  switch (h.element_type()) {
    case ffi::DataType::F32: backward<false, float>(pool, reverse, varying, decay, flags, h_bar, h, initial, *g, *decay_bar); break;
    case ffi::DataType::F64: backward<false, double>(pool, reverse, varying, decay, flags, h_bar, h, initial, *g, *decay_bar); break;
    case ffi::DataType::C64: backward<true, float>(pool, reverse, varying, decay, flags, h_bar, h, initial, *g, *decay_bar); break;
    case ffi::DataType::C128: backward<true, double>(pool, reverse, varying, decay, flags, h_bar, h, initial, *g, *decay_bar); break;
    default: return unserved();
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(memoroids_forward, run_forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int32_t>("reverse")
                                  .Attr<int32_t>("varying"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(memoroids_backward, run_backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int32_t>("reverse")
                                  .Attr<int32_t>("varying"));

// Whether this processor has the instructions of the library that is compiled for AVX2 and FMA.
extern "C" int memoroids_has_avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
#else
  return 0;
#endif
}

// How many of so many threads the kernel uses.
extern "C" int64_t memoroids_threads(int64_t available) { return capped(available); }
