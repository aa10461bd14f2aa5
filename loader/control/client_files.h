// Files and UNIX sockets that a client names by their path, opened with the client's rights.
//
// Root may name any path. Whoever else is in the socket's group could be led, or lead us, astray by a path:
// so it must lie below a configured folder, no link on the way may lead out of that, no other file system may
// be mounted on the way (a user can mount one whose server never answers), and every step is taken with the
// client's own rights (peer_rights.h). What is found is held by a descriptor from the first look on: it is
// looked at before it is opened for reading and writing, so that nothing happens to a FIFO or a device, and
// nothing can take its place in between.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "loader/control/control_peer.h"
#include "numa/descriptor.h"
#include "numa/file_claim.h"
#include "numa/file_id.h"

namespace migrx {

struct ClientFile {
  Descriptor file{};  // open for reading and writing
  FileId id;
  std::string path;   // as the client named it
  bool made = false;  // by open(); belongs to the client's user
  // What FileClaim::look() said of it before it was opened.
  FileClaim::Before before = FileClaim::Before::unknown;
};

class ClientFiles {
 public:
  // folders: absolute paths, below which clients other than root may name files.
  explicit ClientFiles(std::vector<std::string> folders) : folders_(std::move(folders)) {}

  // Opens the regular file, or makes it with `mode`. Empty: `out` has it. Otherwise a sentence, without the
  // option's name, that says what to do. May be called by any thread; blocks while the path is walked.
  [[nodiscard]] std::string open(const ControlPeer& peer, const std::string& path, uint32_t mode,
                                 ClientFile& out) const;
  // Finds the UNIX socket. Empty: `out` holds it (O_PATH), and the client may connect to it; whoever connects
  // by /proc/self/fd/N reaches that very socket, and walks no path of the client's. Otherwise as open().
  [[nodiscard]] std::string open_socket(const ControlPeer& peer, const std::string& path,
                                        Descriptor& out) const;
  // Removes what open() made, with the same rights, while the path still leads to it.
  void remove(const ControlPeer& peer, const ClientFile& file) const;

 private:
  struct Place;
  [[nodiscard]] std::string find(const ControlPeer& peer, const std::string& path, Place& out) const;
  // What `action` says is wrong, with the path before it; it runs with the peer's rights.
  [[nodiscard]] std::string at(const ControlPeer& peer, const std::string& path,
                               const std::function<std::string(const Place&)>& action) const;

  const std::vector<std::string> folders_;
};

}  // namespace migrx
