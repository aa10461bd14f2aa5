#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {
namespace {

#if defined(__x86_64__)
// __builtin_cpu_supports() of clang 14, which builds the fuzz targets, does not know "vaes". That the kernel
// saves the wide registers is in its answer for avx2.
bool has_vaes() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kVaes = 1U << 9;  // of CPUID.(EAX=7,ECX=0):ECX, Intel SDM volume 2
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & kVaes) != 0;
}

bool runs_here(const GcmKernels& kernels) noexcept {
  const bool aesni = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul") &&
                     __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
  const bool vectors = has_vaes() && __builtin_cpu_supports("vpclmulqdq");
  if (&kernels == &kAesniGcmKernels) return aesni;
  if (&kernels == &kVaes256GcmKernels) return aesni && vectors && __builtin_cpu_supports("avx2");
  return aesni && vectors && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}
constexpr const GcmKernels* kBestFirst[] = {&kVaes512GcmKernels, &kVaes256GcmKernels, &kAesniGcmKernels};
#endif

}  // namespace

const GcmKernels* find_gcm_kernels(const char* name) noexcept {
#if defined(__x86_64__)
  for (const GcmKernels* const kernels : kBestFirst)
    if (std::strcmp(kernels->name, name) == 0 && runs_here(*kernels)) return kernels;
#endif
  return nullptr;
}

const GcmKernels* select_gcm_kernels() noexcept {
  const char* const forced = std::getenv("MIGRX_FORCE_KERNEL");
  if (forced != nullptr) {
    if (std::strcmp(forced, "scalar") == 0) return nullptr;
    if (std::strcmp(forced, "sse2") == 0) return find_gcm_kernels("aesni");
    if (std::strcmp(forced, "avx2") == 0) return find_gcm_kernels("vaes256");
  }
#if defined(__x86_64__)
  for (const GcmKernels* const kernels : kBestFirst)
    if (runs_here(*kernels)) return kernels;
#endif
  return nullptr;
}

}  // namespace migrx
