// Memory between two inaccessible pages: a store beside it ends the test by SIGSEGV.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <stdexcept>

namespace migrx::test {

class GuardedMemory {
 public:
  // bytes: rounded up to whole pages.
  explicit GuardedMemory(std::size_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage) {
    void* const all = mmap(nullptr, bytes_ + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::runtime_error("mmap");
    all_ = static_cast<std::byte*>(all);
    if (mprotect(data(), bytes_, PROT_READ | PROT_WRITE) != 0) throw std::runtime_error("mprotect");
  }
  ~GuardedMemory() { munmap(all_, bytes_ + 2 * kPage); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  [[nodiscard]] std::byte* data() const { return all_ + kPage; }
  [[nodiscard]] std::byte* end() const { return data() + bytes_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }

 private:
  static constexpr std::size_t kPage = 4096;
  std::size_t bytes_;
  std::byte* all_;
};

}  // namespace migrx::test
