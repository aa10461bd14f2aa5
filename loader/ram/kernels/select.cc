#include <array>
#include <cstdlib>

#include "loader/ram/kernels/kernel_tables.h"

namespace migrx {
namespace {

constexpr const char* kForceVariable = "MIGRX_FORCE_KERNEL";

struct Supported {
  std::array<const PageKernels*, 4> tables{&kScalarPageKernels};
  std::size_t count = 1;
  Supported() noexcept {
#if defined(__x86_64__)
    tables[count++] = &kSse2PageKernels;
    if (__builtin_cpu_supports("avx2")) tables[count++] = &kAvx2PageKernels;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
      tables[count++] = &kAvx512PageKernels;
#endif
  }
};

}  // namespace

std::span<const PageKernels* const> supported_page_kernels() noexcept {
  static const Supported supported;
  return {supported.tables.data(), supported.count};
}

const PageKernels* find_page_kernels(std::string_view name) noexcept {
  for (const PageKernels* kernels : supported_page_kernels())
    if (name == kernels->name) return kernels;
  return nullptr;
}

const PageKernels* select_page_kernels(std::string& error) {
  const char* const forced = std::getenv(kForceVariable);
  if (forced == nullptr || forced[0] == '\0') return supported_page_kernels().back();
  if (const PageKernels* kernels = find_page_kernels(forced)) return kernels;
  error = std::string(kForceVariable) + "=" + forced + ": no such kernel on this CPU; there are:";
  for (const PageKernels* kernels : supported_page_kernels()) error += std::string(" ") + kernels->name;
  return nullptr;
}

}  // namespace migrx
