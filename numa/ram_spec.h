// One file of guest RAM as --ram describes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "numa/ids.h"

namespace migrx {

// The owner of a file that is made here.
struct FileOwner {
  uint32_t user = 0;
  uint32_t group = 0;
  bool operator==(const FileOwner&) const = default;
};

// "ID=PATH[,size=4G][,node=0][,addr=0][,mode=0600][,owner=USER[:GROUP]][,in-use=allow]" of --ram.
struct RamSpec {
  std::string id;
  std::string path;
  uint64_t size = 0;  // bytes; 0: that of the existing file
  NodeId node = kAnyNode;
  // QEMU's mr->addr of the block at the destination, where its order among the blocks does not tell.
  std::optional<uint64_t> addr;
  uint32_t mode = 0600;            // of a file that is made here
  std::optional<FileOwner> owner;  // of a file that is made here; nothing: this process's user
  // in-use=allow: the operator knows that the other process that has the file runs no guest on it.
  bool in_use_allowed = false;
};
// Empty: `out` is filled. Otherwise what is wrong with the text.
[[nodiscard]] std::string parse_ram_spec(const std::string& text, RamSpec& out);

}  // namespace migrx
