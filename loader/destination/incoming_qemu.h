// What a QEMU that waits for a guest shows of itself to the root of its host: that it was started to wait,
// and the files of its guest's memory. Nothing is asked of it, since its monitor may be busy, or somebody
// else's.
//
// A command line proves nothing: `-incoming` stays on it for life. Whether that QEMU waits is asked of it
// before a byte of its memory changes (docs/handoff.md).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace migrx {

// One memory backend of a QEMU's command line.
struct MemoryBackend {
  std::string type;  // memory-backend-file, -memfd, -ram
  std::string id;
  std::string path;           // of a file, or of the folder in which QEMU makes one
  std::string size;           // as it stands there
  std::optional<bool> share;  // nullopt: not said
};
// cmdline: text of /proc/PID/cmdline, words that end in NUL; each -object as JSON or as key=value pairs. In
// the order of the words. Objects of another form are passed over. Pure.
[[nodiscard]] std::vector<MemoryBackend> memory_backends(std::string_view cmdline);
// The words have `-incoming`, so that this QEMU waited when it was started. Pure.
[[nodiscard]] bool started_to_wait(std::string_view cmdline);

// A descriptor of a process: /proc/PID/fd/`number` leads to `target`.
struct OpenFile {
  int number = -1;
  std::string target;
};
// One value of --ram for each backend: its file by its descriptor, which also leads to a file that has no
// name any more. Empty: `ram` is filled. Otherwise a sentence that says what to do, since nobody else can
// fill that memory. Pure.
[[nodiscard]] std::string find_memory(pid_t process, const std::vector<MemoryBackend>& backends,
                                      std::vector<OpenFile> files, std::vector<std::string>& ram);

// Both, of a process. Reads /proc; a few dozen system calls. Empty: `ram` is filled.
[[nodiscard]] std::string look_at_memory(pid_t process, std::vector<std::string>& ram);
// Processes whose command line has `-incoming`, and that hold the socket. All of /proc is looked through.
[[nodiscard]] std::vector<pid_t> waiting_processes_with_socket(uint64_t inode);

}  // namespace migrx
