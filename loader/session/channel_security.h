// The seam between a connection's bytes and its parser when the stream is encrypted;
// loader/tls/ implements it.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/handoff/handoff.h"
#include "loader/session/channel.h"

namespace migrx {

class ChannelSecurity {
 public:
  virtual ~ChannelSecurity() = default;

  // ---- Worker threads ----
  // A connection that began with a handshake. The parser opens its records and asks `directory` who the
  // plaintext is; it lives until forget(). nullptr: no room, refuse it.
  [[nodiscard]] virtual ChannelParser* accept(Handoff& connection, uint32_t worker,
                                              ChannelDirectory& directory) noexcept = 0;

  // ---- Control thread ----
  // Handshakes go on. Returns work done.
  virtual uint32_t do_work(uint64_t now_ns) = 0;
  // A message of the return path as the bytes to send, at most ConnectionCommand::kBytesMax of them for
  // messages of up to 20. False: this connection cannot be written to.
  [[nodiscard]] virtual bool seal(const Handoff& connection, Bytes message, std::vector<std::byte>& out) = 0;
  // Its worker has let go of the channel.
  virtual void forget(const Handoff& connection) = 0;
};

}  // namespace migrx
