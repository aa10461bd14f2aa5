#include "numa/file_claim.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

namespace migrx {
namespace {

constexpr std::size_t kCommandMax = 80;

// "7f…-7f… rw-s 00000000 00:1a 131431   /dev/shm/x": of this very file. A private mapping ("rw-p") counts as
// a shared one does: until its owner writes a page, that page is the file's.
bool maps(const std::string& line, const FileId& file) {
  unsigned major = 0;
  unsigned minor = 0;
  uint64_t inode = 0;
  if (std::sscanf(line.c_str(), "%*x-%*x %*4s %*x %x:%x %" SCNu64, &major, &minor, &inode) != 3) return false;
  return inode == file.inode && makedev(major, minor) == file.device;
}

std::string command_of(const std::string& folder) {
  std::ifstream stream(folder + "/cmdline", std::ios::binary);
  std::string text(kCommandMax, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(stream.gcount(), 0)));
  while (!text.empty() && text.back() == '\0') text.pop_back();
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = ' ';
  return text;
}

pid_t parent_of(const std::string& folder) {
  std::ifstream stream(folder + "/status");
  std::string line;
  while (std::getline(stream, line))
    if (line.starts_with("PPid:")) return static_cast<pid_t>(std::strtol(line.c_str() + 5, nullptr, 10));
  return 0;
}

// The PID that /proc/locks names for a lock on this file; 0: not found.
pid_t lock_holder(const FileId& file) {
  std::ifstream locks("/proc/locks");
  std::string line;
  while (std::getline(locks, line)) {
    std::istringstream words(line);
    std::string number, kind, mode, access, where;
    long pid = 0;
    if (!(words >> number >> kind >> mode >> access >> pid >> where) || kind != "FLOCK") continue;
    unsigned major = 0;
    unsigned minor = 0;
    uint64_t inode = 0;
    if (std::sscanf(where.c_str(), "%x:%x:%" SCNu64, &major, &minor, &inode) == 3 && inode == file.inode &&
        makedev(major, minor) == file.device)
      return static_cast<pid_t>(pid);
  }
  return 0;
}

}  // namespace

std::vector<FileUser> users_of_file(const FileId& file, const std::string& proc_root, bool& hidden) {
  std::vector<FileUser> users;
  hidden = false;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(proc_root, error)) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, trouble] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (trouble != std::errc{} || end != name.data() + name.size()) continue;
    if (pid == ::getpid() || pid == ::getppid() || parent_of(entry.path().string()) == ::getpid()) continue;
    errno = 0;
    std::ifstream mappings(entry.path() / "maps");
    if (!mappings) {
      // A process that has ended meanwhile hides nothing.
      hidden = hidden || errno == EACCES || errno == EPERM;
      continue;
    }
    std::string line;
    while (std::getline(mappings, line)) {
      if (!maps(line, file)) continue;
      users.push_back({pid, command_of(entry.path().string())});
      break;
    }
  }
  return users;
}

FileClaim::~FileClaim() {
  if (fd_ >= 0) (void)::flock(fd_, LOCK_UN);
}

std::string FileClaim::users_text() const {
  std::string text;
  for (const FileUser& user : users_)
    text += (text.empty() ? "" : ", ") + user.command + " (PID " + std::to_string(user.pid) + ")";
  return text;
}

FileClaim::Before FileClaim::look(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno == ENOENT ? Before::missing : Before::unknown;
  Before before = Before::idle;
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
    (void)::fcntl(fd, F_SETLEASE, F_UNLCK);
  else
    before = errno == EAGAIN ? Before::written : Before::unknown;
  ::close(fd);
  return before;
}

FileClaim::Outcome FileClaim::take(int fd, const std::string& path, Before before, int patience_ms,
                                   const std::function<bool()>& go_on, bool given) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    problem_ = path + ": " + std::strerror(errno);
    return Outcome::refused;
  }
  const FileId file = file_id_of(status);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || std::chrono::steady_clock::now() >= until || (go_on && !go_on())) {
      const pid_t holder = lock_holder(file);
      problem_ = path +
                 (holder == ::getpid() ? ": another migration of this process has locked it"
                                       : ": another process has locked it") +
                 (holder > 0 ? " (PID " + std::to_string(holder) + ")" : "") +
                 (holder == ::getpid() ? "" : ", most likely a migrx that loads a guest there") +
                 ": wait for it, end it, or name another file";
      return Outcome::refused;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  fd_ = fd;
  if (!given && file_id_at(path) != file) {
    problem_ = path + ": the file was removed or replaced a moment ago: start again";
    return Outcome::refused;
  }
  if (before == Before::missing) return Outcome::alone;
  bool hidden = false;
  users_ = users_of_file(file, "/proc", hidden);
  if (!users_.empty()) return Outcome::shared;
  if (before == Before::written || (hidden && before == Before::unknown && !given)) {
    problem_ = path + ": a process that cannot be seen from here " +
               (before == Before::written ? "has it open for writing" : "may map it") +
               ", and may run a guest on it: run migrx as root in the host's PID namespace, remove the file, "
               "or say " +
               "in-use=allow when you know that it runs none";
    return Outcome::refused;
  }
  return Outcome::alone;
}

}  // namespace migrx
