// TLS credentials of a server, and of a client (`migrx generate`, the hand-off), as QEMU's tls-creds-x509 and
// tls-creds-psk take them: the same folder, the same file names, the same checks (QEMU crypto/tlscredsx509.c,
// crypto/tlscredspsk.c). A peer that these credentials accept is one that a QEMU destination with the same
// files accepts, and the reverse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace migrx {

// --tls-creds. "x509:dir=DIR[,verify-peer=on|off][,priority=…][,sanity-check=on|off][,password-file=…]" or
// "psk:dir=DIR[,priority=…]"; a client's psk has ",username=…" as well.
struct TlsCredsOptions {
  enum class Kind : uint8_t { x509, psk };
  enum class Endpoint : uint8_t { server, client };
  Kind kind = Kind::x509;
  Endpoint endpoint = Endpoint::server;
  std::string dir;
  // GnuTLS's; empty: NORMAL. Ciphers other than AES-GCM and ChaCha20 are taken from it, none is added.
  std::string priority;
  std::string password_file;
  std::string username = "qemu";
  std::string option = "--tls-creds";  // that messages name
  bool verify_peer = true;
  bool sanity_check = true;
};
// Empty: `out` is filled. Otherwise what is wrong with the text.
[[nodiscard]] std::string parse_tls_creds(
    const std::string& text, TlsCredsOptions& out,
    TlsCredsOptions::Endpoint endpoint = TlsCredsOptions::Endpoint::server,
    const std::string& option = "--tls-creds");

// Who may connect, by the subject of the client's certificate as GnuTLS writes it, such as
// "C=GB,O=Example,CN=source.example". Exact names or shell patterns; without any rule every client with a
// good certificate may connect.
class TlsAuthz {
 public:
  // A list of patterns of --tls-authz, or the file of QEMU's authz-list-file: "listfile:PATH". Empty: fine.
  [[nodiscard]] std::string set(const std::vector<std::string>& texts);
  // Reads a list file again when it has changed; a file that cannot be read, or is no list, denies.
  [[nodiscard]] bool allows(const std::string& distinguished_name) const;

 private:
  struct Rule {
    std::string match;
    bool glob = false;
    bool allow = true;
  };
  [[nodiscard]] static std::string read_list(const std::string& path, std::vector<Rule>& rules,
                                             bool& allow_others);

  std::vector<Rule> rules_;
  std::string list_file_;
  bool any_ = true;
};

// Immutable once loaded; sessions share it. Any thread.
class TlsCredentials {
 public:
  // Of one certificate that a peer will be shown, or that it is checked with.
  struct Lifetime {
    std::string path;
    int64_t begins_unix_s = 0;
    int64_t ends_unix_s = 0;
    // It has ended, or its last third has begun; empty: neither.
    [[nodiscard]] std::string warning(int64_t now_unix_s) const;
  };

  // Reads each file once and checks everything: what was checked is what is used. nullptr: `problem` names
  // the file and what to do. From then on this process leaves no core dump (numa/core_dumps.h): keys are in
  // its memory.
  [[nodiscard]] static std::shared_ptr<const TlsCredentials> load(const TlsCredsOptions& options,
                                                                  std::string& problem);
  // Every file that load() would read, were it there.
  [[nodiscard]] static std::vector<std::string> files(const TlsCredsOptions& options);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  [[nodiscard]] const TlsCredsOptions& options() const noexcept { return options_; }
  [[nodiscard]] const std::vector<Lifetime>& lifetimes() const noexcept { return lifetimes_; }
  // A list of revoked certificates is part of it.
  [[nodiscard]] bool has_revocations() const noexcept { return has_revocations_; }

 private:
  friend class TlsServerSession;
  friend class TlsClientSession;
  struct Handles;
  TlsCredentials();
  [[nodiscard]] std::string set_priority();
  [[nodiscard]] std::string load_psk();
  [[nodiscard]] std::string load_x509();
  [[nodiscard]] std::string load_pair(const std::string& certificate_path, const std::string& key_path,
                                      const std::string& authorities, const std::string& password);

  TlsCredsOptions options_;
  std::vector<Lifetime> lifetimes_;
  bool has_revocations_ = false;
  const std::unique_ptr<Handles> handles_;
};

}  // namespace migrx
