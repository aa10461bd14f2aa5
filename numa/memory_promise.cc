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

namespace migrx {
namespace {

constexpr std::size_t kTextMax = 4096 + 32;
constexpr int kPromisesMax = 1024;  // of one process

// One file of the folder; those whose writer has gone are removed.
void add_promise(int folder, const char* name, PromisedBytes& sum) {
  const int fd = ::openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  if (::flock(fd, LOCK_SH | LOCK_NB) == 0) {
    (void)::unlinkat(folder, name, 0);
  } else {
    std::array<char, kTextMax> text{};
    const ssize_t size = ::pread(fd, text.data(), text.size() - 1, 0);
    uint64_t bytes = 0;
    int at = 0;
    if (size > 0 && std::sscanf(text.data(), "%" SCNu64 " %n", &bytes, &at) == 1) {
      sum.on_host += bytes;
      std::string group(text.data() + at);
      group.resize(std::min(group.size(), group.find('\n')));
      sum.by_group[group] += bytes;
    }
  }
  ::close(fd);
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

uint64_t PromisedBytes::below(const std::string& group) const {
  uint64_t sum = 0;
  for (const auto& [folder, bytes] : by_group)
    if (folder == group || folder.starts_with(group + "/")) sum += bytes;
  return sum;
}

std::unique_ptr<MemoryPromise> MemoryPromise::make(
    const std::string& folder, uint64_t bytes, const std::string& group,
    const std::function<std::string(const PromisedBytes&)>& judge, std::string& problem) {
  std::unique_ptr<MemoryPromise> promise(new MemoryPromise);
  const int lock = folder.empty() ? -1 : ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock >= 0)
    while (::flock(lock, LOCK_EX) != 0 && errno == EINTR) {
    }
  problem = judge(lock >= 0 ? promised(folder) : PromisedBytes{});
  if (problem.empty() && lock >= 0) {
    promise->group_ = group;
    for (int n = 0; promise->fd_ < 0 && n < kPromisesMax; ++n) {
      promise->path_ = folder + "/memory-" + std::to_string(::getpid()) + "-" + std::to_string(n);
      promise->fd_ = ::open(promise->path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (promise->fd_ >= 0) {
      (void)::flock(promise->fd_, LOCK_EX | LOCK_NB);
      promise->update(bytes);
    }
  }
  if (lock >= 0) ::close(lock);
  return problem.empty() ? std::move(promise) : nullptr;
}

void MemoryPromise::update(uint64_t bytes) noexcept {
  if (fd_ < 0) return;
  std::array<char, kTextMax> text{};
  // Of one width, so that a shorter number leaves nothing of the one before.
  const int size = std::snprintf(text.data(), text.size(), "%020" PRIu64 " %s\n", bytes, group_.c_str());
  if (size > 0 && static_cast<std::size_t>(size) < text.size())
    (void)!::pwrite(fd_, text.data(), static_cast<std::size_t>(size), 0);
}

MemoryPromise::~MemoryPromise() {
  if (fd_ < 0) return;
  (void)::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace migrx
