// Twins: kernels compiled for the host, found by the name under which nvcc's binary registers the kernel.
#pragma once

#include <cstddef>
#include <dlfcn.h>
#include <functional>
#include <string_view>
#include <tuple>
#include <utility>

namespace cuda_sim {

/// A kernel that the host can run.
struct Twin {
  void* function = nullptr;
  /// The kernel with its arguments, which are copied now: as a launch does.
  std::function<void()> (*bind)(void** arguments) = nullptr;

  /// The symbol's name. Both compilers mangle alike, so it is the registered one.
  [[nodiscard]] std::string_view name() const {
    Dl_info info{};
    return dladdr(function, &info) != 0 && info.dli_sname != nullptr ? info.dli_sname : std::string_view();
  }
};

template <typename... Arguments>
struct TwinMaker {
  template <void (*kKernel)(Arguments...), std::size_t... kIndices>
  static std::function<void()> bind(void** arguments, std::index_sequence<kIndices...> /*indices*/) {
    std::tuple<Arguments...> values{*static_cast<Arguments*>(arguments[kIndices])...};
    return [values] { std::apply(kKernel, values); };
  }
  template <void (*kKernel)(Arguments...)>
  static std::function<void()> bind_all(void** arguments) {
    return bind<kKernel>(arguments, std::index_sequence_for<Arguments...>());
  }
};

template <auto kKernel, typename... Arguments>
Twin make_twin(void (*kernel)(Arguments...)) {
  return {.function = reinterpret_cast<void*>(kernel), .bind = &TwinMaker<Arguments...>::template bind_all<kKernel>};
}

/// The twin of one kernel: twin_of<embed_kernel>().
template <auto kKernel>
Twin twin_of() {
  return make_twin<kKernel>(kKernel);
}

}  // namespace cuda_sim
