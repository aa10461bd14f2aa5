#include "loader/destination/peer_memory.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>

#include "loader/stream/printable.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

// /proc files have no length to ask for. A QEMU has some hundred mappings of about 100 bytes each.
constexpr std::size_t kMapsBytesMax = 16 << 20;

std::optional<std::string> read_proc(pid_t pid, const char* name) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/" + name, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text;
  std::vector<char> piece(64 << 10);
  while (in && text.size() < kMapsBytesMax) {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    text.append(piece.data(), static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) return std::nullopt;
  return text;
}

// Cuts the next number off the front, up to and with `end`. False: another form.
bool take_number(std::string_view& line, int base, char end, uint64_t& value) {
  const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), value, base);
  if (error != std::errc{} || rest == line.data() + line.size() || *rest != end) return false;
  line.remove_prefix(static_cast<std::size_t>(rest - line.data()) + 1);
  return true;
}

struct Mapping {
  uint64_t offset;
  uint64_t end;  // in the file
};

// " (/usr/bin/qemu-system-x86_64)": the file that the process was started from, for messages only; a process
// chooses its name (/proc/PID/comm) itself.
std::string program_of(pid_t process) {
  std::array<char, 4096> path;
  const ssize_t bytes =
      ::readlink(("/proc/" + std::to_string(process) + "/exe").c_str(), path.data(), path.size());
  if (bytes <= 0) return "";
  return " (" + printable({path.data(), static_cast<std::size_t>(bytes)}) + ")";
}

}  // namespace

MappingFault find_mapping(std::string_view maps, const FileId& file, uint64_t bytes) {
  bool found = false;
  std::vector<Mapping> shared;
  while (!maps.empty()) {
    const std::size_t newline = maps.find('\n');
    std::string_view line = maps.substr(0, newline);
    maps.remove_prefix(newline == std::string_view::npos ? maps.size() : newline + 1);
    // 7f0000000000-7f0004000000 rw-s 00000000 00:19 1234    /dev/shm/vm0
    uint64_t start = 0, end = 0, offset = 0, major_id = 0, minor_id = 0, inode = 0;
    if (!take_number(line, 16, '-', start) || !take_number(line, 16, ' ', end) || line.size() < 5) continue;
    const bool is_shared = line[3] == 's';
    line.remove_prefix(5);
    if (!take_number(line, 16, ' ', offset) || !take_number(line, 16, ':', major_id) ||
        !take_number(line, 16, ' ', minor_id) ||
        std::from_chars(line.data(), line.data() + line.size(), inode, 10).ec != std::errc{})
      continue;
    if (inode != file.inode || major_id != ::major(file.device) || minor_id != ::minor(file.device) ||
        end <= start)
      continue;
    found = true;
    if (is_shared && offset <= UINT64_MAX - (end - start)) shared.push_back({offset, offset + (end - start)});
  }
  if (!found) return MappingFault::absent;
  if (shared.empty()) return MappingFault::private_copy;
  // One mapping may have been split by a memory policy; several may lie over each other.
  std::sort(shared.begin(), shared.end(),
            [](const Mapping& a, const Mapping& b) { return a.offset < b.offset; });
  uint64_t covered = 0;
  for (const Mapping& mapping : shared)
    if (mapping.offset <= covered) covered = std::max(covered, mapping.end);
  return covered >= bytes ? MappingFault::none : MappingFault::too_short;
}

std::string file_replaced(const std::vector<SharedFile>& files) {
  for (const SharedFile& file : files)
    if (file_id_at(file.path) != file.id)
      return file.path + " of block " + file.idstr +
             " was removed or replaced after migrx had opened it: another program did that; start migrx "
             "again after that program";
  return {};
}

PeerMemory check_peer_memory(int socket, const std::vector<SharedFile>& files) {
  PeerMemory result;
  if (files.empty()) return result;
  const std::optional<ucred> peer = peer_credentials(socket);
  if (!peer || peer->pid <= 0) {
    result.warning =
        "the destination's process cannot be seen from here (another PID namespace): make sure "
        "that its memory backends have share=on and the files of --ram";
    return result;
  }
  return check_process_memory(peer->pid, files);
}

PeerMemory check_process_memory(pid_t process, const std::vector<SharedFile>& files) {
  PeerMemory result;
  if (files.empty()) return result;
  const std::string who = "process " + std::to_string(process) + program_of(process);
  const std::optional<std::string> maps = read_proc(process, "maps");
  if (!maps || maps->empty()) {
    result.warning = "the memory map of " + who +
                     ", the destination, cannot be read: make sure that its memory backends have share=on "
                     "and the files of --ram";
    return result;
  }
  for (const SharedFile& file : files) {
    switch (find_mapping(*maps, file.id, file.bytes)) {
      case MappingFault::none:
        break;
      case MappingFault::absent:
        if (result.problem = file_replaced({file}); !result.problem.empty())
          result.problem += ", and " + who + ", the destination, does not map the one that migrx loads";
        else
          result.problem =
              who + ", the destination, does not map " + file.path + ": block " + file.idstr +
              " needs memory-backend-file,share=on with that mem-path; when that process only passes "
              "bytes on, name the QEMU with --destination-pid";
        break;
      case MappingFault::private_copy:
        result.problem = who + ", the destination, maps " + file.path +
                         " privately: give the memory backend of block " + file.idstr + " share=on";
        break;
      case MappingFault::too_short:
        result.problem = who + ", the destination, does not map all of " + file.path +
                         ": the memory backend of block " + file.idstr +
                         " needs size=" + std::to_string(file.bytes) + " and no offset";
        break;
    }
    if (!result.problem.empty()) return result;
  }
  return result;
}

}  // namespace migrx
