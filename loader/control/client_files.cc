#include "loader/control/client_files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "loader/control/peer_rights.h"

namespace migrx {

// A path in two: the folder that confines it, and the rest.
struct ClientFiles::Place {
  std::string folder;
  std::string rest;
  uint64_t resolve = 0;
};

namespace {

// On the client's behalf: no process may get a controlling terminal or wait by it.
constexpr uint64_t kCommon = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

int open_in(int folder, const std::string& rest, uint64_t flags, uint64_t mode, uint64_t resolve) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve;
  // EAGAIN: somebody renames folders while it looks whether ".." leads out.
  for (int attempt = 0;; ++attempt) {
    const auto fd = static_cast<int>(::syscall(SYS_openat2, folder, rest.c_str(), &how, sizeof how));
    if (fd >= 0 || errno != EAGAIN || attempt == 16) return fd;
  }
}

std::string sentence(int error) {
  switch (error) {
    case EXDEV:
      return "a link or a mount on the way leads out of the folder that is meant for clients' files: name "
             "the "
             "file itself, or send its descriptor";
    case ELOOP:
      return "a link on the way leads nowhere, or into /proc: name the file itself, or send its descriptor";
    case EACCES:
    case EPERM:
      return std::string(std::strerror(error)) + " for this client's user";
    default:
      return std::strerror(error);
  }
}

// All of it runs with the client's rights.
std::string open_there(const std::string& folder_path, const std::string& rest, uint64_t resolve,
                       uint32_t mode, ClientFile& out) {
  const Descriptor folder(::open(folder_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return folder_path + ": " + sentence(errno);
  out.file.reset(open_in(folder.get(), rest, O_RDWR | O_CREAT | O_EXCL | kCommon, mode, resolve));
  out.made = static_cast<bool>(out.file);
  if (!out.file && errno != EEXIST) return sentence(errno);
  const Descriptor found(out.made ? -1 : open_in(folder.get(), rest, O_PATH, 0, resolve));
  if (!out.made && !found) return sentence(errno);
  struct stat status {};
  if (::fstat(out.made ? out.file.get() : found.get(), &status) != 0) return sentence(errno);
  if (!S_ISREG(status.st_mode)) return "guest RAM lies in a regular file, and this is none";
  out.id = file_id_of(status);
  if (out.made) {
    if (::fchmod(out.file.get(), mode) != 0) return sentence(errno);  // exactly so, whatever the umask is
    out.before = FileClaim::Before::missing;
    return {};
  }
  // The very file that was looked at, whatever its path leads to by now.
  const std::string held = "/proc/self/fd/" + std::to_string(found.get());
  out.before = FileClaim::look(held);
  out.file.reset(::open(held.c_str(), static_cast<int>(O_RDWR | kCommon)));
  return out.file ? std::string{} : sentence(errno);
}

// With the client's rights, too. Connecting takes the right to write.
std::string find_socket(const std::string& folder_path, const std::string& rest, uint64_t resolve,
                        Descriptor& out) {
  const Descriptor folder(::open(folder_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return folder_path + ": " + sentence(errno);
  out.reset(open_in(folder.get(), rest, O_PATH, 0, resolve));
  if (!out) return sentence(errno);
  struct stat status {};
  if (::fstat(out.get(), &status) != 0) return sentence(errno);
  if (!S_ISSOCK(status.st_mode)) return "this is no UNIX socket";
  if (::faccessat(out.get(), "", W_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return sentence(errno);
  return {};
}

}  // namespace

std::string ClientFiles::find(const ControlPeer& peer, const std::string& path, Place& out) const {
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos)
    return path + ": the path must begin with /";
  if (peer.root()) {
    out = {"/", path, 0};
    return {};
  }
  for (const std::string& folder : folders_) {
    std::string prefix = folder;
    while (prefix.size() > 1 && prefix.ends_with('/')) prefix.pop_back();
    if (prefix != "/") prefix += '/';
    if (prefix.size() <= out.folder.size() || !path.starts_with(prefix) || path.size() == prefix.size())
      continue;
    out = {prefix, path.substr(prefix.size()), RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    // "folder//etc" would be another path than what is meant.
    while (out.rest.starts_with('/')) out.rest.erase(0, 1);
  }
  if (!out.folder.empty()) return {};
  std::string allowed;
  for (const std::string& folder : folders_)
    allowed += (allowed.empty() ? "name one below " : " or ") + folder;
  return path + ": this client may not name anything there: " + allowed + (allowed.empty() ? "" : ", or ") +
         "send the descriptor of guest RAM (fd:N)";
}

std::string ClientFiles::at(const ControlPeer& peer, const std::string& path,
                            const std::function<std::string(const Place&)>& action) const {
  Place place;
  if (std::string problem = find(peer, path, place); !problem.empty()) return problem;
  std::string problem;
  std::string rights = run_as(peer, [&] { problem = action(place); });
  if (!rights.empty()) problem = std::move(rights);
  return problem.empty() ? problem : path + ": " + problem;
}

std::string ClientFiles::open(const ControlPeer& peer, const std::string& path, uint32_t mode,
                              ClientFile& out) const {
  ClientFile opened;
  std::string problem = at(peer, path, [&](const Place& place) {
    return open_there(place.folder, place.rest, place.resolve, mode, opened);
  });
  if (!problem.empty()) return problem;
  opened.path = path;
  out = std::move(opened);
  return {};
}

std::string ClientFiles::open_socket(const ControlPeer& peer, const std::string& path,
                                     Descriptor& out) const {
  Descriptor found;
  std::string problem = at(peer, path, [&](const Place& place) {
    return find_socket(place.folder, place.rest, place.resolve, found);
  });
  if (problem.empty()) out = std::move(found);
  return problem;
}

void ClientFiles::remove(const ControlPeer& peer, const ClientFile& file) const {
  Place place;
  if (!file.made || !find(peer, file.path, place).empty()) return;
  (void)run_as(peer, [&] {
    const Descriptor folder(::open(place.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::size_t slash = place.rest.rfind('/');
    const std::string parent = slash == std::string::npos ? "." : place.rest.substr(0, slash + 1);
    const std::string name = slash == std::string::npos ? place.rest : place.rest.substr(slash + 1);
    // The folder that it is in is held, so that what is looked at is what is removed, or something else of
    // the client's.
    const Descriptor inner(open_in(folder.get(), parent, O_PATH | O_DIRECTORY, 0, place.resolve));
    struct stat status {};
    if (!inner || ::fstatat(inner.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (file_id_of(status) == file.id) (void)::unlinkat(inner.get(), name.c_str(), 0);
  });
}

}  // namespace migrx
