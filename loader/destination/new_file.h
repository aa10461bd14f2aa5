// A file for guest memory, in place of one that may have been there before.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace migrx {

// Opens it for writing, mode 0600; -1: errno says why. An older file of that name is not shortened, since
// somebody may map it, but loses the name. A link is neither followed nor removed.
[[nodiscard]] inline int open_new_file(const std::string& path) noexcept {
  struct stat old {};
  if (::lstat(path.c_str(), &old) == 0 && S_ISREG(old.st_mode)) (void)::unlink(path.c_str());
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

}  // namespace migrx
