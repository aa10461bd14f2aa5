#include "loader/tls/server_session.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <array>
#include <ctime>
#include <utility>

#include "loader/tls/credentials_handles.h"

namespace migrx {

TlsServerSession::TlsServerSession(std::shared_ptr<const TlsCredentials> credentials, const TlsAuthz* authz)
    : credentials_(std::move(credentials)), authz_(authz), pipe_(GNUTLS_SERVER | GNUTLS_NO_TICKETS) {
  gnutls_session_t const session = pipe_.session();
  if (session == nullptr) return;
  const TlsCredentials::Handles& handles = *credentials_->handles_;
  gnutls_priority_set(session, handles.priority);
  if (handles.psk != nullptr) {
    gnutls_credentials_set(session, GNUTLS_CRD_PSK, handles.psk);
    gnutls_session_set_ptr(session, const_cast<PskKeys*>(&handles.psk_keys));  // for find_psk()
  } else {
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, handles.x509);
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
  }
}

bool TlsServerSession::fail(std::string text) {
  problem_ = std::move(text);
  return false;
}

TlsServerSession::Progress TlsServerSession::handshake(Bytes bytes) {
  if (pipe_.session() == nullptr) return fail("no memory for a TLS session"), Progress::failed;
  if (!pipe_.give(bytes)) return fail("the handshake is longer than any client's"), Progress::failed;
  int result = GNUTLS_E_AGAIN;
  do {
    result = gnutls_handshake(pipe_.session());
    // A warning alert is not fatal, and GnuTLS bounds how many it takes.
  } while (result == GNUTLS_E_WARNING_ALERT_RECEIVED || result == GNUTLS_E_INTERRUPTED);
  if (result == GNUTLS_E_AGAIN) return Progress::need_more;
  if (result < 0) {
    std::string text = gnutls_strerror(result);
    if (result == GNUTLS_E_FATAL_ALERT_RECEIVED) text = "the client says: " + pipe_.alert();
    if (result == GNUTLS_E_NO_CIPHER_SUITES)
      text += ": client and server share no suite of AES-GCM or ChaCha20-Poly1305 (priority= at both ends)";
    return fail(std::move(text)), Progress::failed;
  }
  if (!verify_peer()) return Progress::failed;
  TlsKeys keys;
  if (!read_keys(keys))
    return fail(description() + " was negotiated, which cannot be opened here"), Progress::failed;
  return Progress::done;
}

// QEMU crypto/tlssession.c, qcrypto_tls_session_check_certificate().
bool TlsServerSession::verify_peer() {
  if (credentials_->handles_->psk != nullptr) {
    const char* const identity = gnutls_psk_server_get_username(pipe_.session());
    peer_name_ = identity != nullptr ? identity : "";
    return true;
  }
  if (!credentials_->options().verify_peer) return true;
  unsigned status = 0;
  if (const int result = gnutls_certificate_verify_peers2(pipe_.session(), &status); result < 0)
    return fail(result == GNUTLS_E_NO_CERTIFICATE_FOUND
                    ? "the client has no certificate: give the source client-cert.pem and client-key.pem, or "
                      "verify-peer=off here"
                    : std::string("the client's certificate: ") + gnutls_strerror(result));
  if (status != 0) return fail("the client's certificate: " + verification_text(status));
  unsigned count = 0;
  const gnutls_datum_t* const chain = gnutls_certificate_get_peers(pipe_.session(), &count);
  if (chain == nullptr || count == 0) return fail("the client has no certificate");
  const time_t now = std::time(nullptr);
  for (unsigned i = 0; i < count; ++i) {
    gnutls_x509_crt_t certificate = nullptr;
    if (gnutls_x509_crt_init(&certificate) < 0) return fail("no memory for a certificate");
    std::string problem;
    if (gnutls_x509_crt_import(certificate, &chain[i], GNUTLS_X509_FMT_DER) < 0)
      problem = "the client's certificate cannot be read";
    else if (gnutls_x509_crt_get_expiration_time(certificate) < now)
      problem = "the client's certificate has expired";
    else if (gnutls_x509_crt_get_activation_time(certificate) > now)
      problem = "the client's certificate is not valid yet: is this host's clock right?";
    if (problem.empty() && i == 0) {
      std::array<char, 1024> name{};
      std::size_t bytes = name.size();
      if (gnutls_x509_crt_get_dn(certificate, name.data(), &bytes) < 0)
        problem = "the subject of the client's certificate is too long";
      else
        peer_name_.assign(name.data());
    }
    gnutls_x509_crt_deinit(certificate);
    if (!problem.empty()) return fail(std::move(problem));
  }
  if (authz_ != nullptr && !authz_->allows(peer_name_))
    return fail("the client " + peer_name_ + " is not among those of --tls-authz");
  return true;
}

TlsServerSession::RecordEvent TlsServerSession::on_record(Bytes record, uint64_t sequence) {
  if (!pipe_.set_sequence(TlsPipe::Direction::from_peer, sequence))
    return fail("the record's number cannot be set"), RecordEvent::failed;
  pipe_.give_only(record);
  std::array<std::byte, 64> text;
  const ssize_t result = gnutls_record_recv(pipe_.session(), text.data(), text.size());
  pipe_.give_only({});
  if (result == GNUTLS_E_AGAIN)
    return RecordEvent::new_keys;  // a KeyUpdate was taken, and nothing else was there
  if (result == 0) return RecordEvent::closed;
  if (result == GNUTLS_E_FATAL_ALERT_RECEIVED || result == GNUTLS_E_WARNING_ALERT_RECEIVED)
    fail("the client says: " + pipe_.alert());
  else
    fail(result < 0 ? gnutls_strerror(static_cast<int>(result)) : "a record that is no data brought data");
  return RecordEvent::failed;
}

bool TlsServerSession::seal(Bytes text) {
  return gnutls_record_send(pipe_.session(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace migrx
