// Gives each new connection the credentials that lie in the folder now. An operator may renew a certificate
// while a receiver waits; nothing tells the receiver, so it looks itself.
//
//   current() ─ files as they were ─▶ what there is
//             └ changed ─ sound ─▶ the new set
//                       └ broken ─▶ what there is, and a warning
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "loader/tls/credentials.h"

namespace migrx {

// One thread at a time: it reads files.
class TlsCredentialStore {
 public:
  // nullptr: `problem` names the file and what to do; nothing may be served without credentials.
  [[nodiscard]] static std::unique_ptr<TlsCredentialStore> open(const TlsCredsOptions& options,
                                                                std::string& problem,
                                                                std::vector<std::string>& warnings);

  // For a connection that begins now. A set that is replaced file by file is broken for moments: then what
  // there was stays, and the next call looks again. A list of revoked certificates that has gone counts as
  // broken too: the clients it names would be let in. warnings: each is given once. Never nullptr.
  [[nodiscard]] std::shared_ptr<const TlsCredentials> current(int64_t now_unix_s,
                                                              std::vector<std::string>& warnings);
  // How often a new set took the place of the one before.
  [[nodiscard]] uint32_t reloads() const noexcept { return reloads_; }

 private:
  // Of each file that QEMU's names allow: a file that is replaced has another inode or another time.
  struct FileState {
    bool there = false;
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t bytes = 0;
    int64_t modified_ns = 0;
    int64_t changed_ns = 0;
    bool operator==(const FileState&) const = default;
  };
  using FolderState = std::vector<FileState>;

  explicit TlsCredentialStore(TlsCredsOptions options);
  [[nodiscard]] FolderState look() const;
  void reload(int64_t now_unix_s, const FolderState& state, std::vector<std::string>& warnings);

  const TlsCredsOptions options_;
  const std::vector<std::string> files_;
  std::shared_ptr<const TlsCredentials> loaded_;
  FolderState loaded_state_;
  // The last attempt that failed. A set may become sound though no file changes: its time has come.
  FolderState tried_state_;
  int64_t tried_unix_s_ = 0;
  std::string problem_;
  std::set<std::string> told_;  // about lifetimes, of the loaded set
  uint32_t reloads_ = 0;
};

}  // namespace migrx
