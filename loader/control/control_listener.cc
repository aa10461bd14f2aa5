#include "loader/control/control_listener.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>

namespace migrx {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error("control socket " + path + ": " + why);
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos)
    refuse(path, "the path must begin with /");
  if (path.size() >= sizeof address.sun_path) refuse(path, "a socket's path is shorter than 108 bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Descriptor make_socket(const std::string& path) {
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) refuse(path, std::strerror(errno));
  return fd;
}

// nullopt: the process's own.
std::optional<gid_t> group_of(const std::string& path, const std::string& name) {
  if (name.empty()) return std::nullopt;
  gid_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error == std::errc{} && end == name.data() + name.size() && id != static_cast<gid_t>(-1)) return id;
  const ::group* const entry = ::getgrnam(name.c_str());
  if (entry == nullptr) refuse(path, "this host has no group '" + name + "'");
  return entry->gr_gid;
}

// Under the lock: nobody else of ours removes anything here.
void remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return;
    refuse(path, std::strerror(errno));
  }
  if (!S_ISSOCK(status.st_mode))
    refuse(path, "a file that is no socket is there: remove it, or name another path");
  const Descriptor probe = make_socket(path);
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno != ECONNREFUSED)
    refuse(path, "another process listens there: end it, or name another path");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) refuse(path, std::strerror(errno));
}

}  // namespace

ControlListener::ControlListener(const std::string& path, const std::string& group) : path_(path) {
  const sockaddr_un address = address_of(path);
  const std::optional<gid_t> owner = group_of(path, group);
  const std::string lock = path + ".lock";
  lock_.reset(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (!lock_)
    refuse(path, lock + ": " + std::strerror(errno) +
                     (errno == ENOENT ? ": make the folder first"
                                      : ": run as a user that may write there, or name another path"));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
    refuse(path, "another migrx serves there: end it, or name another path");
  remove_stale(path, address);
  socket_ = make_socket(path);
  // The path gets the socket's mode (Linux's unix_bind()), so it is never open to others; and until listen()
  // nobody can connect.
  if (::fchmod(socket_.get(), 0600) != 0 ||
      ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    refuse(path, std::strerror(errno));
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) refuse(path, std::strerror(errno));
  id_ = file_id_of(status);
  const auto undo = [&](const std::string& what) {
    const std::string why = what + ": " + std::strerror(errno);
    (void)::unlink(path.c_str());
    refuse(path, why);
  };
  if (owner && ::fchownat(AT_FDCWD, path.c_str(), static_cast<uid_t>(-1), *owner, AT_SYMLINK_NOFOLLOW) != 0)
    undo("cannot be given to group " + group);
  if (::chmod(path.c_str(), 0660) != 0) undo("cannot be made 0660");
  if (::listen(socket_.get(), SOMAXCONN) != 0) undo("cannot listen");
}

ControlListener::~ControlListener() {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0 && file_id_of(status) == id_) (void)::unlink(path_.c_str());
}

}  // namespace migrx
