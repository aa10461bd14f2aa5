// Memory that this process is about to take, told to the other migrx processes of the host.
//
// Between the look at MemAvailable and the last page some seconds pass, in which a second receiver would see
// the same memory free. Each keeps a file "memory-PID-N" in a folder that all of them know, with what it has
// yet to take; a lock (flock) on it shows that its writer lives. Looking and promising are one step, under a
// lock on the folder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace migrx {

struct PromisedBytes {
  uint64_t on_host = 0;
  std::map<std::string, uint64_t> by_group;  // folder of the control group that pays; "": not known
  // What is charged to the group, or to one below it, and so counts for the group's limits.
  [[nodiscard]] uint64_t below(const std::string& group) const;
};

class MemoryPromise {
 public:
  // folder: exists, and only we write there. group: folder of the control group that pays, empty: not known.
  // `judge` is given what others have promised; a text from it is a refusal, `problem` then, and nullptr
  // returned. A folder that cannot be used is no reason to refuse: then nobody's promises are known, and
  // the result is empty-handed.
  [[nodiscard]] static std::unique_ptr<MemoryPromise> make(
      const std::string& folder, uint64_t bytes, const std::string& group,
      const std::function<std::string(const PromisedBytes&)>& judge, std::string& problem);
  ~MemoryPromise();
  MemoryPromise(const MemoryPromise&) = delete;
  MemoryPromise& operator=(const MemoryPromise&) = delete;

  // What is yet to be taken, bytes.
  void update(uint64_t bytes) noexcept;

 private:
  MemoryPromise() = default;
  std::string path_;
  std::string group_;
  int fd_ = -1;
};

}  // namespace migrx
