#include <cstdlib>
#include <cstring>

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {
namespace {

#if defined(__x86_64__)
bool runs_here(const GcmKernels& kernels) noexcept {
  const bool aesni = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul") &&
                     __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
  const bool vectors = __builtin_cpu_supports("vaes") && __builtin_cpu_supports("vpclmulqdq");
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
