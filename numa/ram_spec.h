// One file of guest RAM as --ram describes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "numa/file_claim.h"
#include "numa/ids.h"

namespace migrx {

// The owner of a file that is made here.
struct FileOwner {
  uint32_t user = 0;
  uint32_t group = 0;
  bool operator==(const FileOwner&) const = default;
};

// A file that is open already.
struct GivenFile {
  // Open for reading and writing, by whoever has a right to it, and held until the file has been claimed. The
  // claim opens the file anew: a lock belongs to what one open(2) made, and its giver has that, too.
  int descriptor = -1;
  // What FileClaim::look() said before it was opened. Of a file that somebody sent it can say nothing:
  // whoever did has it open for writing.
  FileClaim::Before before = FileClaim::Before::unknown;
};

// "ID=PATH[,size=4G][,node=0][,addr=0][,mode=0600][,owner=USER[:GROUP]][,in-use=allow]" of --ram.
struct RamSpec {
  std::string id;
  std::string path;                // with `given`: what people call it
  std::optional<GivenFile> given;  // instead of opening `path`
  std::optional<uint32_t> number;  // of "fd:N", the N-th descriptor of those that came with the text
  uint64_t size = 0;               // bytes; 0: that of the existing file
  NodeId node = kAnyNode;
  // QEMU's mr->addr of the block at the destination, where its order among the blocks does not tell.
  std::optional<uint64_t> addr;
  uint32_t mode = 0600;            // of a file that is made here
  std::optional<FileOwner> owner;  // of a file that is made here; nothing: this process's user
  // in-use=allow: the operator knows that the other process that has the file runs no guest on it.
  bool in_use_allowed = false;

  // By which the file can be looked at; with `given` it leads to that very file.
  [[nodiscard]] std::string access_path() const {
    return given ? "/proc/self/fd/" + std::to_string(given->descriptor) : path;
  }
};
// Empty: `out` is filled. Otherwise what is wrong with the text. descriptors: how many came with it, as
// ID=fd:N[,…] names them.
[[nodiscard]] std::string parse_ram_spec(const std::string& text, RamSpec& out, uint32_t descriptors = 0);

}  // namespace migrx
