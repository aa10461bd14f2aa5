// Memory that stands in for guest RAM and for a port's packet buffers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace migrx::bench {

// Private, faulted in, of 2 MiB hugepages where the system has enough of them; otherwise of what the kernel
// gives.
class HugeRegion {
 public:
  // bytes: rounded up to 2 MiB. Throws std::bad_alloc.
  explicit HugeRegion(std::size_t bytes);
  ~HugeRegion();
  HugeRegion(const HugeRegion&) = delete;
  HugeRegion& operator=(const HugeRegion&) = delete;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }
  // "2 MiB" from the reserved pool, or "transparent": the kernel was asked for large pages and may have given
  // some.
  [[nodiscard]] const char* pages() const noexcept { return reserved_ ? "2 MiB" : "transparent"; }

 private:
  std::size_t bytes_;
  std::byte* data_ = nullptr;
  bool reserved_ = true;
};

}  // namespace migrx::bench
