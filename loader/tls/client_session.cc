#include "loader/tls/client_session.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <array>
#include <utility>

#include "loader/tls/credentials_handles.h"

namespace migrx {

TlsClientSession::TlsClientSession(std::shared_ptr<const TlsCredentials> credentials, std::string host,
                                   std::string host_option)
    : credentials_(std::move(credentials)),
      host_(std::move(host)),
      host_option_(std::move(host_option)),
      pipe_(GNUTLS_CLIENT | GNUTLS_NO_TICKETS) {
  gnutls_session_t const session = pipe_.session();
  if (session == nullptr) return;
  const TlsCredentials::Handles& handles = *credentials_->handles_;
  gnutls_priority_set(session, handles.priority);
  if (handles.psk_client != nullptr)
    gnutls_credentials_set(session, GNUTLS_CRD_PSK, handles.psk_client);
  else
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, handles.x509);
}

bool TlsClientSession::fail(std::string text) {
  problem_ = std::move(text);
  return false;
}

TlsClientSession::Progress TlsClientSession::handshake(Bytes bytes) {
  gnutls_session_t const session = pipe_.session();
  if (session == nullptr) return fail("no memory for a TLS session"), Progress::failed;
  if (!pipe_.give(bytes)) return fail("the handshake is longer than any server's"), Progress::failed;
  int result = GNUTLS_E_AGAIN;
  do {
    result = gnutls_handshake(session);
  } while (result == GNUTLS_E_WARNING_ALERT_RECEIVED || result == GNUTLS_E_INTERRUPTED);
  if (result == GNUTLS_E_AGAIN) return Progress::need_more;
  if (result == GNUTLS_E_FATAL_ALERT_RECEIVED)
    return fail("the server says: " + pipe_.alert()), Progress::failed;
  if (result < 0) {
    std::string text = gnutls_strerror(result);
    if (result == GNUTLS_E_UNEXPECTED_PACKET_LENGTH || result == GNUTLS_E_UNEXPECTED_PACKET ||
        result == GNUTLS_E_UNSUPPORTED_VERSION_PACKET)
      text += ": does the destination speak TLS?";
    return fail(std::move(text)), Progress::failed;
  }
  if (!verify_server()) return Progress::failed;
  TlsKeys keys;
  if (!write_keys(keys))
    return fail(description() + " was negotiated, which cannot be sealed here"), Progress::failed;
  return Progress::done;
}

// QEMU crypto/tlssession.c, qcrypto_tls_session_check_certificate(): the chain, its dates and the name.
bool TlsClientSession::verify_server() {
  if (credentials_->handles_->psk_client != nullptr || !credentials_->options().verify_peer) return true;
  unsigned status = 0;
  if (const int result = gnutls_certificate_verify_peers3(pipe_.session(), host_.c_str(), &status);
      result < 0)
    return fail(std::string("the server's certificate: ") + gnutls_strerror(result));
  if (status == 0) return true;
  std::string why = verification_text(status);
  if ((status & GNUTLS_CERT_UNEXPECTED_OWNER) != 0)
    why += " Name one that it has with " + host_option_ + ", or make a certificate for " + host_ + ".";
  return fail("the server's certificate: " + why);
}

bool TlsClientSession::update_keys(uint64_t sequence, TlsKeys& keys) {
  return pipe_.set_sequence(TlsPipe::Direction::to_peer, sequence) &&
         gnutls_session_key_update(pipe_.session(), 0) == 0 && write_keys(keys);
}

bool TlsClientSession::write(Bytes text) {
  while (!text.empty()) {
    const ssize_t n = gnutls_record_send(pipe_.session(), text.data(), text.size());
    if (n < 0) return fail(gnutls_strerror(static_cast<int>(n)));  // memory is never full for a moment
    text = text.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

bool TlsClientSession::read(Bytes bytes, std::vector<std::byte>& text) {
  if (!pipe_.give(bytes)) return fail("the server sends a record without end");
  std::array<std::byte, 4096> some;
  for (;;) {
    const std::size_t before = pipe_.rest().size();
    const ssize_t n = gnutls_record_recv(pipe_.session(), some.data(), some.size());
    if (n > 0) {
      text.insert(text.end(), some.begin(), some.begin() + n);
      continue;
    }
    if (n == GNUTLS_E_AGAIN) {  // also after a record without data, such as a KeyUpdate
      if (pipe_.rest().size() == before) return true;
      continue;
    }
    if (n == GNUTLS_E_INTERRUPTED) continue;
    if (n == 0) return false;
    if (n == GNUTLS_E_FATAL_ALERT_RECEIVED || n == GNUTLS_E_WARNING_ALERT_RECEIVED)
      return fail("the server says: " + pipe_.alert());
    return fail(gnutls_strerror(static_cast<int>(n)));
  }
}

}  // namespace migrx
