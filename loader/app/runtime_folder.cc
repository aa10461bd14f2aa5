#include "loader/app/runtime_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "loader/app/setup_error.h"
#include "numa/process_descriptor.h"
#include "numa/process_user.h"

namespace migrx {
namespace {

constexpr std::string_view kRecordSuffix = ".lost";
constexpr std::string_view kSocketSuffix = ".sock";
constexpr std::string_view kTake = "take\n";
constexpr std::string_view kTaken = "taken\n";
constexpr std::string_view kShow = "show\n";
constexpr timeval kAnswerTime{2, 0};
constexpr int kEndTimeMs = 3000;
constexpr std::size_t kRecordsMax = 256;

void bound_waits(int socket) {
  (void)::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTime, sizeof kAnswerTime);
  (void)::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &kAnswerTime, sizeof kAnswerTime);
}

// The address of a name in an open folder: paths of any length, and no race with a rename of the folder.
sockaddr_un address_of(int folder, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder, name);
  std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

// The first byte brings the descriptor along.
bool send_with_descriptor(int socket, std::string_view bytes, int descriptor) {
  iovec part{const_cast<char*>(bytes.data()), 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == 1 && send_all(socket, bytes.substr(1));
}

// Up to the record's last line. `descriptor`: one that came along.
std::optional<LostRecord> receive_record(int socket, Descriptor& descriptor) {
  std::string text;
  std::array<char, 65536> buffer;
  while (text.size() <= kLostRecordBytesMax && !text.ends_with("\nend\n")) {
    iovec part{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (n <= 0) return std::nullopt;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
      continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    descriptor.reset(fd);
  }
  return lost_record_from(text);
}

bool ended(int pidfd, int timeout_ms) {
  pollfd process{pidfd, POLLIN, 0};
  return ::poll(&process, 1, timeout_ms) == 1;
}

}  // namespace

std::string default_runtime_folder() {
  if (::geteuid() == 0) return "/run/migrx";
  const char* const own = std::getenv("XDG_RUNTIME_DIR");
  return own == nullptr || *own == '\0' ? "" : std::string(own) + "/migrx";
}

std::string runtime_folder_of(const std::string& option) {
  return option.empty() ? default_runtime_folder() : option;
}

std::string usable_runtime_folder(const std::string& option) {
  std::string folder = runtime_folder_of(option);
  std::string problem;
  return !folder.empty() && RuntimeFolder::open(folder, problem) ? folder : std::string();
}

std::optional<RuntimeFolder> RuntimeFolder::open(const std::string& path, std::string& problem) {
  const auto refuse = [&](const std::string& why) {
    problem = fmt::format("{}: {}; name another folder with --runtime-dir", path, why);
    return std::nullopt;
  };
  if (path.empty()) {
    problem = "there is no runtime folder: set XDG_RUNTIME_DIR, or name one with --runtime-dir";
    return std::nullopt;
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return refuse(std::strerror(errno));
  Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat status {};
  if (!folder || ::fstat(folder.get(), &status) != 0) return refuse(std::strerror(errno));
  if (status.st_uid != ::geteuid()) return refuse("it belongs to another user");
  if ((status.st_mode & 0022) != 0) return refuse("others may write there (chmod 700)");
  return RuntimeFolder(path, std::move(folder));
}

std::optional<RuntimeFolder::Announcement> RuntimeFolder::announce(const LostRecord& record,
                                                                   std::string& problem) const {
  const auto refuse = [&](const char* what) {
    problem = fmt::format("{}: cannot {}: {}", path_, what, std::strerror(errno));
    return std::nullopt;
  };
  Announcement out;
  out.name = fmt::format("{}-{:x}", record.process, boottime_ns());
  const std::string text = to_text(record);
  const std::string temporary = out.name + ".new";
  {
    const Descriptor file(
        ::openat(folder_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) return refuse("write a record");
    if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      (void)::unlinkat(folder_.get(), temporary.c_str(), 0);
      return refuse("write a record");
    }
  }
  out.socket.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const std::string unnamed = out.name + ".bound";
  const sockaddr_un address = address_of(folder_.get(), unnamed);
  const std::string socket_name = out.name + std::string(kSocketSuffix);
  const std::string record_name = out.name + std::string(kRecordSuffix);
  if (!out.socket ||
      ::bind(out.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(out.socket.get(), 4) != 0 ||
      ::renameat(folder_.get(), unnamed.c_str(), folder_.get(), socket_name.c_str()) != 0 ||
      ::renameat(folder_.get(), temporary.c_str(), folder_.get(), record_name.c_str()) != 0) {
    const int error = errno;
    for (const std::string& name : {temporary, unnamed, socket_name})
      (void)::unlinkat(folder_.get(), name.c_str(), 0);
    errno = error;
    return refuse("listen");
  }
  return out;
}

void RuntimeFolder::withdraw(const std::string& name) const noexcept {
  // The record first: who sees it without its socket takes the process for killed.
  for (const std::string_view suffix : {kRecordSuffix, kSocketSuffix})
    (void)::unlinkat(folder_.get(), (name + std::string(suffix)).c_str(), 0);
}

std::vector<std::string> RuntimeFolder::records() const {
  std::vector<std::string> names;
  const int again = ::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (again < 0) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(again), ::closedir);
  if (listing == nullptr) return names;
  while (const dirent* const entry = ::readdir(listing.get())) {
    const std::string_view name = entry->d_name;
    if (name.ends_with(kRecordSuffix) && names.size() < kRecordsMax)
      names.emplace_back(name.substr(0, name.size() - kRecordSuffix.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<LostRecord> RuntimeFolder::read(const std::string& name) const {
  const Descriptor file(::openat(folder_.get(), (name + std::string(kRecordSuffix)).c_str(),
                                 O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  std::string text(kLostRecordBytesMax + 1, '\0');
  const ssize_t n = ::read(file.get(), text.data(), text.size());
  if (n < 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return lost_record_from(text);
}

Descriptor RuntimeFolder::connect(const std::string& name, int& error) const {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = address_of(folder_.get(), name + std::string(kSocketSuffix));
  bound_waits(socket.get());
  error =
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  return socket;
}

void RuntimeFolder::take_over(const LostRecord& ours,
                              const std::function<void(const std::vector<LostConnection>&)>& adopt) const {
  for (const std::string& name : records()) {
    std::optional<LostRecord> record = read(name);
    if (!record || record->host.boot_id != ours.host.boot_id) {
      if (record) withdraw(name);  // of another boot; what cannot be read is left for people to look at
      continue;
    }
    if (!in_the_way(*record, ours)) continue;
    int error = 0;
    const Descriptor socket = connect(name, error);
    if (error == ECONNREFUSED || error == ENOENT) {
      // That process was killed: no process holds the port, and the list is what it left.
      if (record->until_ns > boottime_ns()) adopt(record->lost);
      withdraw(name);
      continue;
    }
    Descriptor process;
    std::optional<LostRecord> answer;
    if (error == 0 && send_all(socket.get(), kTake)) answer = receive_record(socket.get(), process);
    if (!answer || !process) {
      if (!read(name)) continue;  // it has ended meanwhile
      throw SetupError(
          fmt::format("a process that stayed for an earlier receiver (started by process {}) holds {} and "
                      "does not answer at {}/{}.sock: end that process (ss -xlp names it), and try again",
                      record->process, record->ports.front(), path_, name));
    }
    adopt(answer->lost);
    (void)send_all(socket.get(), kTaken);
    if (!ended(process.get(), kEndTimeMs)) {
      (void)::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
      (void)ended(process.get(), kEndTimeMs);
    }
    withdraw(name);
  }
}

bool serve_takeover(const Descriptor& client, const std::function<LostRecord()>& now) {
  const std::optional<ucred> peer = peer_credentials(client.get());
  if (!peer || (peer->uid != 0 && peer->uid != ::geteuid())) return false;
  bound_waits(client.get());
  std::string said;
  const auto hear = [&](std::string_view what) {
    std::array<char, 16> buffer;
    while (said.size() < what.size() && what.starts_with(said)) {
      const ssize_t n = ::recv(client.get(), buffer.data(), what.size() - said.size(), 0);
      if (n <= 0) return false;
      said.append(buffer.data(), static_cast<std::size_t>(n));
    }
    const bool heard = said == what;
    if (heard) said.clear();
    return heard;
  };
  static_assert(kShow.size() == kTake.size());
  if (!hear(kTake)) {
    if (said.size() < kShow.size() && kShow.starts_with(said) && !said.empty() && !hear(kShow)) return false;
    if (said == kShow || said.empty()) (void)send_all(client.get(), to_text(now()));
    return false;
  }
  const Descriptor self = hold_process(::getpid());
  if (!self || !send_with_descriptor(client.get(), to_text(now()), self.get())) return false;
  return hear(kTaken);
}

}  // namespace migrx
