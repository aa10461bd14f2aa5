// What the small benchmarks share. Each verifies its result before it is timed.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace migrx::bench {

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "wrong result: %s\n", what);
  std::abort();
}

// Memory of pages, faulted in, so that first touches are not what is measured.
class Region {
 public:
  explicit Region(std::size_t bytes)
      : bytes_(bytes), data_(static_cast<std::byte*>(std::aligned_alloc(2 << 20, bytes))) {
    std::memset(data_, 1, bytes);
  }
  ~Region() { std::free(data_); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

// One file per subject.
void register_copy_benchmarks();     // micro_copy.cc: packet buffers in several orders, warm and cold
void register_tcp_benchmarks();      // micro_tcp.cc: in-order input, reassembly, hand-off ring
void register_payload_benchmarks();  // micro_payload.cc: zlib, zstd, zero pages
// micro_tls.cc: records opened, by kernel and way.
void register_tls_benchmarks(std::size_t guest_bytes);
// micro_in_place.cc: decoding without a buffer in between. guest_mib: of guest memory, all of it walked
// through.
void register_in_place_benchmarks(std::size_t guest_mib);

}  // namespace migrx::bench
