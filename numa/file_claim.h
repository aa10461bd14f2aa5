// Claims a RAM file for this process. Either no other process uses the file, or exactly one maps it, which
// then has to prove that it is a destination QEMU that waits.
//
// Two guards, both before a byte of the file is changed:
// - A lock (flock) keeps a second migrx out for as long as this one holds the file. /proc/locks names its
// holder.
// - Another process that maps the file may be running a guest on it. The mappings of all processes are
//   searched (/proc/PID/maps), and the file's users named by PID and command. A process that cannot be seen
//   (of another PID namespace, or of another user) is noticed by the kernel's refusal of a read lease
//   (fcntl(2), F_SETLEASE).
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "numa/file_id.h"

namespace migrx {

// A process that maps a file, shared or privately.
struct FileUser {
  pid_t pid = 0;
  std::string command;  // the first words of its command line, control characters replaced
};

// Those under `proc_root` ("/proc") that map the file, but for this process, its parent and its
// children. `hidden`: some process could not be looked at.
[[nodiscard]] std::vector<FileUser> users_of_file(const FileId& file, const std::string& proc_root,
                                                  bool& hidden);

class FileClaim {
 public:
  enum class Outcome : unsigned char {
    alone,   // no other process uses it
    shared,  // `users` do: nothing may be written before they have proved to wait
    refused,
  };
  // How the file was found before this process opened it.
  enum class Before : unsigned char {
    missing,  // this process made it, so no other process can have it
    idle,     // no process has it open for writing or maps it so: the kernel granted a read lease
    written,  // somebody does
    unknown,  // no lease can be had here (another user's file, a file system without)
  };

  FileClaim() = default;
  ~FileClaim();
  FileClaim(const FileClaim&) = delete;
  FileClaim& operator=(const FileClaim&) = delete;

  // fd: the file, open for reading and writing, which must outlive the claim; path: the name it was opened
  // by; before: what look() said. Waits up to `patience_ms` for another migrx that is ending, and no longer
  // than `go_on` (nullptr: always) is true. refused: problem() says who has it and what to do. given:
  // somebody sent it open: the path need not lead to it any more, and that nobody who cannot be seen has it
  // is the sender's word.
  [[nodiscard]] Outcome take(int fd, const std::string& path, Before before, int patience_ms,
                             const std::function<bool()>& go_on = nullptr, bool given = false);
  // To be asked before this process opens the file for writing.
  [[nodiscard]] static Before look(const std::string& path);

  [[nodiscard]] const std::vector<FileUser>& users() const noexcept { return users_; }
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  // "qemu-system-x86 (PID 4711), …".
  [[nodiscard]] std::string users_text() const;

 private:
  int fd_ = -1;
  std::vector<FileUser> users_;
  std::string problem_;
};

}  // namespace migrx
