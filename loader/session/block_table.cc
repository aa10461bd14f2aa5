#include "loader/session/block_table.h"

#include <algorithm>

#include "numa/guest_memory.h"

namespace migrx {

BlockTable::BlockTable(uint64_t private_bytes_max) : private_bytes_max_(private_bytes_max) {}
BlockTable::~BlockTable() = default;

void BlockTable::add_file_backed(const std::string& idstr, GuestMemory& memory) {
  const RamBlock& block =
      list_.add(std::make_unique<RamBlock>(idstr, memory.data(), memory.length(),
                                           /*file_backed=*/true, memory.fresh(), memory.node()));
  paths_.emplace_back(&block, memory.path());
}

std::string BlockTable::path_of(const RamBlock& block) const {
  for (const auto& [known, path] : paths_)
    if (known == &block) return path;
  return {};
}

StreamError BlockTable::resolve(std::span<const BlockEntry> entries) {
  for (std::size_t i = 0; i < list_.size(); ++i) {
    const std::string& idstr = list_[i].idstr();
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const BlockEntry& candidate) { return candidate.idstr == idstr; });
    if (entry == entries.end()) {
      std::string names;
      for (const BlockEntry& other : entries) names += (names.empty() ? "" : ", ") + other.idstr;
      return make_error(ErrorClass::mismatch, 0, "ram block list: idstr",
                        "block %s of --ram is not among the source's blocks (%s): name it as the source does",
                        idstr.c_str(), names.c_str());
    }
    if (entry->used_length != list_[i].used_length()) {
      const std::string text = "RAM size of block " + idstr + ": give --ram " + idstr +
                               "=PATH,size=" + std::to_string(entry->used_length);
      return make_error_values(ErrorClass::mismatch, 0, "ram block list: used_length", entry->used_length,
                               list_[i].used_length(), text.c_str());
    }
  }
  for (const BlockEntry& entry : entries) {
    if (list_.find(entry.idstr) != nullptr) continue;
    if (entry.used_length > private_bytes_max_ - private_bytes_) {
      const std::string text = "block " + entry.idstr + " has no file: name one with --ram " + entry.idstr +
                               "=PATH,size=" + std::to_string(entry.used_length) +
                               ", or raise --private-ram-max";
      return make_error_values(ErrorClass::mismatch, 0, "ram block list: private memory",
                               private_bytes_ + entry.used_length, private_bytes_max_, text.c_str());
    }
    std::string problem;
    std::byte* const memory = private_block(entry.used_length, problem);
    if (memory == nullptr)
      return make_error(ErrorClass::io, 0, "ram block list: private memory", "no memory for block %s: %s",
                        entry.idstr.c_str(), problem.c_str());
    list_.add(std::make_unique<RamBlock>(entry.idstr, memory, entry.used_length,
                                         /*file_backed=*/false,
                                         /*fresh=*/true, kAnyNode));
    private_bytes_ += entry.used_length;
  }
  return {};
}

std::string BlockTable::prepare_private(uint64_t bytes) {
  std::string problem;
  bytes = std::min(bytes, private_bytes_max_) / kPageBytes * kPageBytes;
  if (bytes == 0) return {};
  auto memory = PrivateMemory::allocate(bytes, problem);
  if (memory == nullptr || !memory->populate(kAnyNode, problem)) return problem;
  prepared_ = memory->data();
  prepared_left_ = bytes;
  private_memory_.push_back(std::move(memory));
  return {};
}

std::byte* BlockTable::private_block(uint64_t bytes, std::string& problem) {
  if (bytes <= prepared_left_) {
    std::byte* const block = prepared_;
    prepared_ += bytes;
    prepared_left_ -= bytes;
    return block;
  }
  auto memory = PrivateMemory::allocate(bytes, problem);
  if (memory == nullptr) return nullptr;
  private_memory_.push_back(std::move(memory));
  return private_memory_.back()->data();
}

}  // namespace migrx
