#include "numa/memory_promise.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace migrx {
namespace {

constexpr std::size_t kPromiseTextMax = 16 << 10;
constexpr uint64_t kPromiseBytesMax = uint64_t{1} << 56;  // no host has more
constexpr int kPromisesMax = 1024;                        // of one process

// A line each: BYTES and the group, "BYTES huge NODE PAGE-BYTES", "BYTES files FILE-SYSTEM". Every number of
// bytes is of one width, so that a shorter one leaves nothing of the one before.
PromisedMemory parse_promise(std::string_view text) {
  PromisedMemory memory;
  for (bool first = true; !text.empty(); first = false) {
    const std::string line(text.substr(0, text.find('\n')));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    uint64_t bytes = 0;
    uint64_t page_bytes = 0;
    int node = 0;
    int at = 0;
    if (std::sscanf(line.c_str(), "%" SCNu64 " %n", &bytes, &at) != 1 || bytes > kPromiseBytesMax) continue;
    const std::string rest = line.substr(std::min(line.size(), static_cast<std::size_t>(at)));
    if (first) {
      memory.ordinary = bytes;
      memory.group = rest;
    } else if (std::sscanf(rest.c_str(), "huge %d %" SCNu64, &node, &page_bytes) == 2) {
      memory.hugepages[{NodeId{node}, page_bytes}] += bytes;
    } else if (rest.starts_with("files ")) {
      memory.file_systems[rest.substr(6)] += bytes;
    }
  }
  return memory;
}

// One file of the folder; those whose writer has gone are removed.
void add_promise(int folder, const char* name, PromisedBytes& sum) {
  const int fd = ::openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  if (::flock(fd, LOCK_SH | LOCK_NB) == 0) {
    (void)::unlinkat(folder, name, 0);
  } else {
    std::array<char, kPromiseTextMax> text{};
    const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
    if (size > 0) sum.jobs.push_back(parse_promise({text.data(), static_cast<std::size_t>(size)}));
  }
  ::close(fd);
}

bool is_below(const std::string& folder, const std::string& group) {
  return folder == group || folder.starts_with(group + "/");
}

PromisedBytes promised(const std::string& path) {
  PromisedBytes sum;
  DIR* const folder = ::opendir(path.c_str());
  if (folder == nullptr) return sum;
  while (const dirent* const entry = ::readdir(folder))
    if (std::strncmp(entry->d_name, "memory-", 7) == 0) add_promise(::dirfd(folder), entry->d_name, sum);
  ::closedir(folder);
  return sum;
}

}  // namespace

uint64_t PromisedBytes::ordinary() const {
  uint64_t sum = 0;
  for (const PromisedMemory& job : jobs) sum += job.ordinary;
  return sum;
}

uint64_t PromisedBytes::ordinary_below(const std::string& group) const {
  uint64_t sum = 0;
  for (const PromisedMemory& job : jobs)
    if (is_below(job.group, group)) sum += job.ordinary;
  return sum;
}

uint64_t PromisedBytes::hugepages_below(const std::string& group, uint64_t page_bytes) const {
  uint64_t sum = 0;
  for (const PromisedMemory& job : jobs)
    for (const auto& [where, bytes] : job.hugepages)
      if (where.second == page_bytes && is_below(job.group, group)) sum += bytes;
  return sum;
}

uint64_t PromisedBytes::hugepages_of(NodeId node, uint64_t page_bytes) const {
  uint64_t sum = 0;
  for (const PromisedMemory& job : jobs)
    for (const auto& [where, bytes] : job.hugepages)
      if (where == std::pair{node, page_bytes}) sum += bytes;
  return sum;
}

uint64_t PromisedBytes::in_file_system(const std::string& name) const {
  uint64_t sum = 0;
  for (const PromisedMemory& job : jobs)
    for (const auto& [file_system, bytes] : job.file_systems)
      if (file_system == name) sum += bytes;
  return sum;
}

std::unique_ptr<MemoryPromise> MemoryPromise::make(
    const std::string& folder, const PromisedMemory& memory,
    const std::function<std::string(const PromisedBytes&)>& judge, std::string& problem) {
  std::unique_ptr<MemoryPromise> promise(new MemoryPromise);
  const int lock = folder.empty() ? -1 : ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock >= 0)
    while (::flock(lock, LOCK_EX) != 0 && errno == EINTR) {
    }
  problem = judge(lock >= 0 ? promised(folder) : PromisedBytes{});
  if (problem.empty() && lock >= 0) {
    for (int n = 0; promise->fd_ < 0 && n < kPromisesMax; ++n) {
      promise->path_ = folder + "/memory-" + std::to_string(::getpid()) + "-" + std::to_string(n);
      promise->fd_ = ::open(promise->path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (promise->fd_ >= 0) {
      (void)::flock(promise->fd_, LOCK_EX | LOCK_NB);
      promise->update(memory);
    }
  }
  if (lock >= 0) ::close(lock);
  return problem.empty() ? std::move(promise) : nullptr;
}

void MemoryPromise::update(const PromisedMemory& memory) noexcept {
  if (fd_ < 0) return;
  std::array<char, kPromiseTextMax> text{};
  std::size_t end = 0;
  const auto add = [&](const char* format, auto... values) {
    const int size = std::snprintf(text.data() + end, text.size() - end, format, values...);
    if (size > 0 && static_cast<std::size_t>(size) < text.size() - end) end += static_cast<std::size_t>(size);
  };
  add("%020" PRIu64 " %s\n", memory.ordinary, memory.group.c_str());
  for (const auto& [where, bytes] : memory.hugepages)
    add("%020" PRIu64 " huge %d %" PRIu64 "\n", bytes, where.first.value(), where.second);
  for (const auto& [name, bytes] : memory.file_systems) add("%020" PRIu64 " files %s\n", bytes, name.c_str());
  (void)!::pwrite(fd_, text.data(), end, 0);
}

MemoryPromise::~MemoryPromise() {
  if (fd_ < 0) return;
  (void)::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace migrx
