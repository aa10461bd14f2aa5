// One connection's TLS as GnuTLS sees it: the handshake, the return path's side that writes, and the few
// records that are not application data. Records that carry the stream are opened elsewhere (tls_channel.h),
// with the keys that the handshake ends with.
//
// Sans-IO: bytes in, bytes out. One thread at a time. GnuTLS asks its pull function for exactly a header and
// then for exactly that record, so what follows the handshake in the same bytes is never swallowed.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/tls/credentials.h"
#include "loader/tls/tls_pipe.h"

namespace migrx {

class TlsServerSession {
 public:
  enum class Progress : uint8_t { need_more, done, failed };
  enum class RecordEvent : uint8_t { new_keys, closed, failed };

  // authz may be null: everybody with a good certificate. Both must outlive the session.
  TlsServerSession(std::shared_ptr<const TlsCredentials> credentials, const TlsAuthz* authz);

  // The handshake goes on with these bytes. Takes milliseconds when it signs.
  [[nodiscard]] Progress handshake(Bytes bytes);
  // After done: what came with the handshake's last bytes and belongs to the record layer.
  [[nodiscard]] Bytes rest() const noexcept { return pipe_.rest(); }
  // After done, and after new_keys: the direction towards us.
  [[nodiscard]] bool read_keys(TlsKeys& keys) const {
    return pipe_.keys(TlsPipe::Direction::from_peer, keys);
  }

  // A whole record that the record layer found not to be application data; `sequence` is its number.
  [[nodiscard]] RecordEvent on_record(Bytes record, uint64_t sequence);
  // A message for the peer becomes a record in take_output(). False: the session cannot write.
  [[nodiscard]] bool seal(Bytes text);

  // What is to be sent now, as one piece; whoever asks takes it.
  [[nodiscard]] std::vector<std::byte> take_output() noexcept { return pipe_.take_output(); }
  // Of the client's certificate, or its PSK identity; after done.
  [[nodiscard]] const std::string& peer_name() const noexcept { return peer_name_; }
  // "TLS1.3 AES-256-GCM"; after done.
  [[nodiscard]] std::string description() const { return pipe_.description(); }
  // After failed.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  [[nodiscard]] bool verify_peer();
  bool fail(std::string text);  // false, so that it can be returned

  const std::shared_ptr<const TlsCredentials> credentials_;
  const TlsAuthz* const authz_;
  // A ticket after the handshake would be bytes on a connection that its source never reads, and its
  // close a reset.
  TlsPipe pipe_;
  std::string peer_name_;
  std::string problem_;
};

}  // namespace migrx
