// Memory that this process is about to take, told to the other migrx processes of the host.
//
// Between the look at what is free and the last page some seconds pass, in which a second receiver would see
// the same memory free. Each keeps a file "memory-PID-N" in a folder that all of them know, with what it has
// yet to take; a lock (flock) on it shows that its writer lives. Looking and promising are one step, under a
// lock on the folder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "numa/ids.h"

namespace migrx {

// What one job has yet to take, bytes.
struct PromisedMemory {
  std::string group;      // folder of the control group that pays; "": not known
  uint64_t ordinary = 0;  // pages of the smallest size
  std::map<std::pair<NodeId, uint64_t>, uint64_t> hugepages;  // by node (kAnyNode: any) and page size
  std::map<std::string, uint64_t> file_systems;               // by MemoryNeed::file_system
};

// What all other jobs of the host have yet to take, bytes.
struct PromisedBytes {
  std::vector<PromisedMemory> jobs;

  [[nodiscard]] uint64_t ordinary() const;
  // What is charged to the group, or to one below it, and so counts for the group's limits.
  [[nodiscard]] uint64_t ordinary_below(const std::string& group) const;
  [[nodiscard]] uint64_t hugepages_below(const std::string& group, uint64_t page_bytes) const;
  [[nodiscard]] uint64_t hugepages_of(NodeId node, uint64_t page_bytes) const;
  [[nodiscard]] uint64_t in_file_system(const std::string& name) const;
};

class MemoryPromise {
 public:
  // folder: exists, and only we write there. `judge` is given what others have promised; a text from it is a
  // refusal, `problem` then, and nullptr returned. A folder that cannot be used is no reason to refuse: then
  // nobody's promises are known, and the result is empty-handed.
  [[nodiscard]] static std::unique_ptr<MemoryPromise> make(
      const std::string& folder, const PromisedMemory& memory,
      const std::function<std::string(const PromisedBytes&)>& judge, std::string& problem);
  ~MemoryPromise();
  MemoryPromise(const MemoryPromise&) = delete;
  MemoryPromise& operator=(const MemoryPromise&) = delete;

  // What is yet to be taken: of the same kinds as before, in other amounts.
  void update(const PromisedMemory& memory) noexcept;

 private:
  MemoryPromise() = default;
  std::string path_;
  int fd_ = -1;
};

}  // namespace migrx
