// The inner loops of page writing, one set per instruction set, chosen once at start.
//
// Guest pages are written once and not read again by this program, so they are stored past the caches: a full
// 64-byte line by non-temporal stores needs no read for ownership and evicts nothing. A line that is stored
// in two parts would cost a read-modify-write in the memory controller, hence the staging line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace migrx {

inline constexpr std::size_t kLineBytes = 64;

// Where a PageWriter stands: `fill` bytes of the line at `dst` are waiting in `line`, everything before it is
// stored. Invariant: dst is aligned to kLineBytes, fill < kLineBytes.
struct LineWriter {
  alignas(kLineBytes) std::byte line[kLineBytes];
  std::byte* dst = nullptr;
  std::size_t fill = 0;
};

struct PageKernels {
  const char* name;
  // Appends n bytes from src (any alignment); stores every line that becomes full.
  void (*write)(LineWriter& writer, const std::byte* src, std::size_t n) noexcept;
  // Zeroes n bytes; dst and n are multiples of kLineBytes.
  void (*clear)(std::byte* dst, std::size_t n) noexcept;
  // n is a multiple of kLineBytes, p has any alignment.
  bool (*is_zero)(const std::byte* p, std::size_t n) noexcept;
  // Orders the stores above before every later store of this thread.
  void (*fence)() noexcept;
};

// Kernels that this CPU runs, best last; the scalar reference is always the first.
[[nodiscard]] std::span<const PageKernels* const> supported_page_kernels() noexcept;
// nullptr: not built, or not supported by this CPU.
[[nodiscard]] const PageKernels* find_page_kernels(std::string_view name) noexcept;
// The best one, unless the environment variable MIGRX_FORCE_KERNEL names another. nullptr: the one named
// there cannot run here, and `error` says which can.
[[nodiscard]] const PageKernels* select_page_kernels(std::string& error);

}  // namespace migrx
