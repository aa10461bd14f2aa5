// The listening UNIX socket of a daemon, at a path that belongs to one daemon at a time.
#pragma once

#include <string>

#include "numa/descriptor.h"
#include "numa/file_id.h"

namespace migrx {

class ControlListener {
 public:
  // Binds and listens; does not block when accepted from. The path is made 0660 and belongs to `group`
  // (empty: ours), and nobody can connect before that is so. A socket that a dead process left is replaced;
  // one that somebody listens on, or a file of another kind, is refused. Two daemons that start at the same
  // moment are kept apart by a lock on PATH.lock, which stays. Throws std::runtime_error with a sentence.
  ControlListener(const std::string& path, const std::string& group);
  // Removes the path while it still leads to this socket.
  ~ControlListener();
  ControlListener(const ControlListener&) = delete;
  ControlListener& operator=(const ControlListener&) = delete;

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  const std::string path_;
  Descriptor lock_;
  Descriptor socket_;
  FileId id_;
};

}  // namespace migrx
