// The identity of a file, whatever its path leads to by now: its device and inode.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace migrx {

struct FileId {
  uint64_t device = 0;  // dev_t
  uint64_t inode = 0;   // 0: no file
  bool operator==(const FileId&) const = default;
  [[nodiscard]] bool known() const noexcept { return inode != 0; }
};

[[nodiscard]] inline FileId file_id_of(const struct stat& status) noexcept {
  return {status.st_dev, status.st_ino};
}
// The file that the path leads to now; not known() when there is none.
[[nodiscard]] inline FileId file_id_at(const std::string& path) noexcept {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? file_id_of(status) : FileId{};
}

}  // namespace migrx
