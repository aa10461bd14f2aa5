// The session's RAM blocks: those named by --ram, and private memory for all others that the stream lists.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "loader/main/main_events.h"
#include "loader/ram/ram_block.h"

namespace migrx {

class GuestMemory;
class PrivateMemory;

class BlockTable {
 public:
  // private_bytes_max bounds what the stream's block list can make us allocate.
  explicit BlockTable(uint64_t private_bytes_max);
  ~BlockTable();

  // Before loading: a block that lives in a file. The memory must outlive the table.
  void add_file_backed(const std::string& idstr, GuestMemory& memory);
  // The file of a file-backed block.
  [[nodiscard]] std::string path_of(const RamBlock& block) const;

  // Before loading: memory for `bytes` of private blocks (at most private_bytes_max), faulted in, so that
  // writing them costs no page fault; blocks beyond it come page by page. Returns why the host does not have
  // it, or nothing.
  [[nodiscard]] std::string prepare_private(uint64_t bytes);

  // The stream's block list: every named block must be in it with the very length prepared, every other gets
  // private memory. Main's worker, once. Errors say which option or file to change.
  [[nodiscard]] StreamError resolve(std::span<const BlockEntry> entries);

  [[nodiscard]] RamBlockList& list() noexcept { return list_; }
  [[nodiscard]] const RamBlockList& list() const noexcept { return list_; }

 private:
  // Zeroed memory for a private block; nullptr: `problem` says why.
  [[nodiscard]] std::byte* private_block(uint64_t bytes, std::string& problem);

  const uint64_t private_bytes_max_;
  uint64_t private_bytes_ = 0;
  RamBlockList list_;
  std::vector<std::pair<const RamBlock*, std::string>> paths_;
  std::vector<std::unique_ptr<PrivateMemory>> private_memory_;
  // What is left of the memory prepared.
  std::byte* prepared_ = nullptr;
  uint64_t prepared_left_ = 0;
};

}  // namespace migrx
