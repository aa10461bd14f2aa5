// What a QEMU that waits for a guest shows of itself to the root of its host: that it was started to wait,
// and the files of its guest's memory. Nothing is asked of it, since its monitor may be busy, or somebody
// else's.
//
// A command line proves nothing: `-incoming` stays on it for life. Whether that QEMU waits is asked of it
// before a byte of its memory changes (docs/handoff.md). Nor does a name below /proc/PID/fd prove a right: a
// process may have a file of somebody else open for reading, and root would open it for writing. So the
// descriptors themselves are taken (pidfd_getfd(2)), and GuestMemory refuses those that cannot be written by.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "numa/descriptor.h"

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
// A backend's memory: a descriptor of the process that leads to it, also when it has no name any more.
struct BackendFile {
  std::string id;
  std::string size;  // as the command line has it; empty: it says nothing that is a size
  int number = -1;
};
// One for each backend. Empty: `found` is filled. Otherwise a sentence that says what to do, since nobody
// else can fill that memory. Pure.
[[nodiscard]] std::string find_memory(const std::vector<MemoryBackend>& backends, std::vector<OpenFile> files,
                                      std::vector<BackendFile>& found);

// The memory of a waiting guest, taken from the process that owns it.
struct TakenMemory {
  std::vector<std::string> ram;         // values of --ram: "mem=fd:0,size=64M"
  std::vector<Descriptor> files;        // in that order
  uid_t user = static_cast<uid_t>(-1);  // whose process it is
};
// Needs CAP_SYS_PTRACE for processes of others. Some dozen system calls; any thread. Empty: `out` is filled.
[[nodiscard]] std::string take_memory(pid_t process, uint64_t listener, TakenMemory& out);
// Processes whose command line has `-incoming`, and that hold the socket. All of /proc is looked through.
[[nodiscard]] std::vector<pid_t> waiting_processes_with_socket(uint64_t inode);

}  // namespace migrx
