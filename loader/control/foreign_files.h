// Descriptors that a stranger sent (SCM_RIGHTS of unix(7)), and how to be rid of those that are of no use.
//
// close() can stand still for as long as their sender likes: a TCP socket lingers (SO_LINGER), a file of FUSE
// waits for its server to answer a flush. So only files of hugetlbfs and tmpfs, of which guest RAM is made,
// are kept; a socket no longer lingers when it is closed, and a helper thread closes the rest.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "numa/descriptor.h"

namespace migrx {

// A regular file of hugetlbfs or tmpfs, named or a memfd. Asks the kernel's own memory alone (F_GET_SEALS of
// fcntl(2)), no file system.
[[nodiscard]] bool is_memory_file(int fd) noexcept;

class ForeignFiles {
 public:
  static constexpr std::size_t kWaitingMax = 64;

  ForeignFiles();
  // Whatever a closing waits for goes on without this object.
  ~ForeignFiles();
  ForeignFiles(const ForeignFiles&) = delete;
  ForeignFiles& operator=(const ForeignFiles&) = delete;

  // Never blocks. Files of memory are closed at once.
  void dispose(Descriptor file);
  void dispose(std::vector<Descriptor> files);
  // kWaitingMax or more wait for their closing: somebody sends such on purpose.
  [[nodiscard]] bool overrun() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace migrx
