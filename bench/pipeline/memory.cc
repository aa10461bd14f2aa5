#include "bench/pipeline/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace migrx::bench {
namespace {

constexpr std::size_t kHugePage = 2U << 20;

void* map(std::size_t bytes, int flags) {
  void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

HugeRegion::HugeRegion(std::size_t bytes) : bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
  void* p = map(bytes_, MAP_HUGETLB);
  if (p == nullptr) {
    reserved_ = false;
    p = map(bytes_, 0);
    if (p == nullptr) throw std::bad_alloc();
    static_cast<void>(madvise(p, bytes_, MADV_HUGEPAGE));
  }
  data_ = static_cast<std::byte*>(p);
  std::memset(data_, 0, bytes_);
}

HugeRegion::~HugeRegion() {
  munmap(data_, bytes_);
}

}  // namespace migrx::bench
