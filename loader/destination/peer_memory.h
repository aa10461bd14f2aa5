// Checks that the process that owns the incoming socket maps the files that migrx loads, and maps
// them shared. A destination whose memory backend lacks share=on would not complain: it gets no pages
// in the stream, and its guest would run on a private copy of whatever the file held when each page
// was first touched.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "numa/file_id.h"

namespace migrx {

// A file that migrx loads.
struct SharedFile {
  std::string idstr;
  std::string path;             // as --ram names it, for messages only: it may lead elsewhere by now
  FileId id;                    // of the descriptor that migrx holds
  uint64_t bytes = 0;           // of the RAM block in it
  bool others_allowed = false;  // other processes than the destination may map it (in-use=allow)
  uint64_t page_bytes = 4096;   // of the file system it lies on
};

// What is wrong when a path does not lead to the file any more, in words for the operator; empty: all do. A
// process that opens the path later has another guest's memory, or none.
[[nodiscard]] std::string file_replaced(const std::vector<SharedFile>& files);

enum class MappingFault : uint8_t {
  none,
  absent,        // no mapping of that file
  private_copy,  // mapped, but not shared
  too_short,     // shared, but not all of the block from its first byte on
};
// maps: text of /proc/PID/maps (proc_pid_maps(5)); lines of another form are passed over. Pure.
[[nodiscard]] MappingFault find_mapping(std::string_view maps, const FileId& file, uint64_t bytes);

struct PeerMemory {
  std::string problem;  // the destination would lose the guest: refuse it
  std::string warning;  // the process could not be looked at
};
// socket: connected to a UNIX listener on this host. Reads /proc/PID/maps of the process that called listen()
// (SO_PEERCRED, unix(7)); control thread, a few file reads. Processes of other PID namespaces cannot be seen,
// and those of other users only by root: a warning. Whatever the process is called, one that does not map a
// file is a problem: a relay has to be told from the destination by --destination-pid.
[[nodiscard]] PeerMemory check_peer_memory(int socket, const std::vector<SharedFile>& files);
// The same of a process that is known.
[[nodiscard]] PeerMemory check_process_memory(pid_t process, const std::vector<SharedFile>& files);

}  // namespace migrx
