#include "loader/colo/ram_cache.h"

#include "numa/guest_memory.h"

namespace migrx {

ColoRamCache::ColoRamCache(const PageKernels& kernels) : writer_(kernels) {}
ColoRamCache::~ColoRamCache() = default;

const ColoRamCache::Entry* ColoRamCache::entry_of(const RamBlock& block) const noexcept {
  for (const Entry& entry : entries_)
    if (entry.block == &block) return &entry;
  return nullptr;
}

std::string ColoRamCache::add(const RamBlock& block) {
  if (entry_of(block) != nullptr) return {};
  Entry entry;
  std::string problem;
  entry.block = &block;
  entry.memory = PrivateMemory::allocate(block.used_length(), problem);
  if (entry.memory == nullptr || !entry.memory->populate(block.node(), problem)) return problem;
  entry.marks = std::make_unique<PageBitmap>(block.pages());
  bytes_.add(block.used_length());
  entries_.push_back(std::move(entry));
  return {};
}

void ColoRamCache::target_ram(RamBlockList& blocks) noexcept {
  // A page whose mark was taken may hold anything, so zero pages are always written.
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (const Entry* const entry = entry_of(blocks[i]))
      blocks[i].set_target({blocks[i].host(), entry->marks.get(), /*untouched_is_zero=*/false, nullptr});
}

void ColoRamCache::target_cache(RamBlockList& blocks) noexcept {
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (const Entry* const entry = entry_of(blocks[i]))
      blocks[i].set_target({entry->memory->data(), entry->marks.get(), /*untouched_is_zero=*/false, nullptr});
}

bool ColoRamCache::move_some(bool to_ram) noexcept {
  uint64_t words = kWordsPerSlice;
  uint64_t pages = kPagesPerSlice;
  uint64_t moved = 0;
  bool done = true;
  for (; at_ < entries_.size(); ++at_, next_word_ = 0) {
    const Entry& entry = entries_[at_];
    std::byte* const ram = entry.block->host();
    std::byte* const cache = entry.memory->data();
    done = entry.marks->take_some(next_word_, words, pages, [&](uint64_t page) {
      const uint64_t offset = page * kPageBytes;
      writer_.copy_page((to_ram ? ram : cache) + offset, (to_ram ? cache : ram) + offset);
      entry.block->written().set(page);
      ++moved;
    });
    if (!done) break;
  }
  writer_.fence();
  (to_ram ? pages_to_ram : pages_to_cache).add(moved);
  if (done) at_ = next_word_ = 0;
  return done;
}

}  // namespace migrx
