#include "loader/tls/server_session.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "loader/tls/credentials_handles.h"

namespace migrx {

struct TlsServerSession::Callbacks {
  static ssize_t pull(gnutls_transport_ptr_t self, void* to, std::size_t bytes) {
    auto& session = *static_cast<TlsServerSession*>(self);
    const std::size_t n = std::min(bytes, session.input_.size() - session.input_read_);
    if (n == 0) {
      gnutls_transport_set_errno(session.session_, EAGAIN);
      return -1;
    }
    std::memcpy(to, session.input_.data() + session.input_read_, n);
    session.input_read_ += n;
    return static_cast<ssize_t>(n);
  }
  static ssize_t push(gnutls_transport_ptr_t self, const void* from, std::size_t bytes) {
    auto& session = *static_cast<TlsServerSession*>(self);
    const auto* const first = static_cast<const std::byte*>(from);
    session.output_.insert(session.output_.end(), first, first + bytes);
    return static_cast<ssize_t>(bytes);
  }
  static int pull_timeout(gnutls_transport_ptr_t self, unsigned /*ms*/) {
    const auto& session = *static_cast<TlsServerSession*>(self);
    return session.input_.size() > session.input_read_ ? 1 : 0;
  }
};

TlsServerSession::TlsServerSession(std::shared_ptr<const TlsCredentials> credentials, const TlsAuthz* authz)
    : credentials_(std::move(credentials)), authz_(authz) {
  // A ticket after the handshake would be bytes on a connection that its source never reads, and its close a
  // reset.
  if (gnutls_init(&session_, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL) < 0)
    return;
  const TlsCredentials::Handles& handles = *credentials_->handles_;
  gnutls_priority_set(session_, handles.priority);
  if (handles.psk != nullptr) {
    gnutls_credentials_set(session_, GNUTLS_CRD_PSK, handles.psk);
    gnutls_session_set_ptr(session_, const_cast<PskKeys*>(&handles.psk_keys));  // for find_psk()
  } else {
    gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, handles.x509);
    gnutls_certificate_server_set_request(session_, GNUTLS_CERT_REQUEST);
  }
  gnutls_transport_set_ptr(session_, this);
  gnutls_transport_set_pull_function(session_, Callbacks::pull);
  gnutls_transport_set_push_function(session_, Callbacks::push);
  gnutls_transport_set_pull_timeout_function(session_, Callbacks::pull_timeout);
  gnutls_handshake_set_timeout(session_, GNUTLS_INDEFINITE_TIMEOUT);  // the acceptor has the clock
}

TlsServerSession::~TlsServerSession() {
  if (session_ != nullptr) gnutls_deinit(session_);
}

bool TlsServerSession::fail(std::string text) {
  problem_ = std::move(text);
  return false;
}

TlsServerSession::Progress TlsServerSession::handshake(Bytes bytes) {
  if (session_ == nullptr) return fail("no memory for a TLS session"), Progress::failed;
  if (input_read_ > 0) {
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(input_read_));
    input_read_ = 0;
  }
  if (input_.size() + bytes.size() > kInputBytesMax)
    return fail("the handshake is longer than any client's"), Progress::failed;
  input_.insert(input_.end(), bytes.begin(), bytes.end());
  int result = GNUTLS_E_AGAIN;
  do {
    result = gnutls_handshake(session_);
    // A warning alert is not fatal, and GnuTLS bounds how many it takes.
  } while (result == GNUTLS_E_WARNING_ALERT_RECEIVED || result == GNUTLS_E_INTERRUPTED);
  if (result == GNUTLS_E_AGAIN) return Progress::need_more;
  if (result < 0) {
    std::string text = gnutls_strerror(result);
    if (result == GNUTLS_E_FATAL_ALERT_RECEIVED)
      text = std::string("the client says: ") + gnutls_alert_get_name(gnutls_alert_get(session_));
    if (result == GNUTLS_E_NO_CIPHER_SUITES)
      text += ": client and server share no suite of AES-GCM or ChaCha20-Poly1305 (priority= at both ends)";
    return fail(std::move(text)), Progress::failed;
  }
  if (!verify_peer()) return Progress::failed;
  TlsKeys keys;
  if (!read_keys(keys))
    return fail(std::string("the suite ") + gnutls_cipher_get_name(gnutls_cipher_get(session_)) +
                " was negotiated, which cannot be opened here"),
           Progress::failed;
  return Progress::done;
}

// QEMU crypto/tlssession.c, qcrypto_tls_session_check_certificate().
bool TlsServerSession::verify_peer() {
  if (credentials_->handles_->psk != nullptr) {
    const char* const identity = gnutls_psk_server_get_username(session_);
    peer_name_ = identity != nullptr ? identity : "";
    return true;
  }
  if (!credentials_->options().verify_peer) return true;
  unsigned status = 0;
  if (const int result = gnutls_certificate_verify_peers2(session_, &status); result < 0)
    return fail(result == GNUTLS_E_NO_CERTIFICATE_FOUND
                    ? "the client has no certificate: give the source client-cert.pem and client-key.pem, or "
                      "verify-peer=off here"
                    : std::string("the client's certificate: ") + gnutls_strerror(result));
  if (status != 0) {
    gnutls_datum_t text{};
    (void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    std::string why = text.data != nullptr ? reinterpret_cast<const char*>(text.data) : "not verified";
    gnutls_free(text.data);
    return fail("the client's certificate: " + why);
  }
  unsigned count = 0;
  const gnutls_datum_t* const chain = gnutls_certificate_get_peers(session_, &count);
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

bool TlsServerSession::read_keys(TlsKeys& keys) const {
  switch (gnutls_protocol_get_version(session_)) {
    case GNUTLS_TLS1_3:
      keys.version = TlsVersion::tls13;
      break;
    case GNUTLS_TLS1_2:
      keys.version = TlsVersion::tls12;
      break;
    default:
      return false;
  }
  switch (gnutls_cipher_get(session_)) {
    case GNUTLS_CIPHER_AES_128_GCM:
      keys.suite = TlsSuite::aes_128_gcm;
      break;
    case GNUTLS_CIPHER_AES_256_GCM:
      keys.suite = TlsSuite::aes_256_gcm;
      break;
    case GNUTLS_CIPHER_CHACHA20_POLY1305:
      keys.suite = TlsSuite::chacha20_poly1305;
      break;
    default:
      return false;
  }
  gnutls_datum_t mac{};
  gnutls_datum_t iv{};
  gnutls_datum_t key{};
  std::array<unsigned char, 8> sequence{};
  if (gnutls_record_get_state(session_, 1, &mac, &iv, &key, sequence.data()) < 0) return false;
  if (key.size > keys.key.size() || iv.size > keys.iv.size()) return false;
  std::memcpy(keys.key.data(), key.data, key.size);
  std::memcpy(keys.iv.data(), iv.data, iv.size);
  keys.sequence = 0;
  for (const unsigned char b : sequence) keys.sequence = keys.sequence << 8 | b;
  return true;
}

TlsServerSession::RecordEvent TlsServerSession::on_record(Bytes record, uint64_t sequence) {
  std::array<unsigned char, 8> number{};
  for (unsigned i = 0; i < 8; ++i) number[i] = static_cast<unsigned char>(sequence >> (56 - 8 * i));
  if (gnutls_record_set_state(session_, 1, number.data()) < 0)
    return fail("the record's number cannot be set"), RecordEvent::failed;
  input_.assign(record.begin(), record.end());
  input_read_ = 0;
  std::array<std::byte, 64> text;
  const ssize_t result = gnutls_record_recv(session_, text.data(), text.size());
  input_.clear();
  input_read_ = 0;
  if (result == GNUTLS_E_AGAIN)
    return RecordEvent::new_keys;  // a KeyUpdate was taken, and nothing else was there
  if (result == 0) return RecordEvent::closed;
  if (result == GNUTLS_E_FATAL_ALERT_RECEIVED || result == GNUTLS_E_WARNING_ALERT_RECEIVED)
    fail(std::string("the client says: ") + gnutls_alert_get_name(gnutls_alert_get(session_)));
  else
    fail(result < 0 ? gnutls_strerror(static_cast<int>(result)) : "a record that is no data brought data");
  return RecordEvent::failed;
}

bool TlsServerSession::seal(Bytes text) {
  return gnutls_record_send(session_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::vector<std::byte> TlsServerSession::take_output() noexcept {
  return std::exchange(output_, {});
}

std::string TlsServerSession::description() const {
  return std::string(gnutls_protocol_get_name(gnutls_protocol_get_version(session_))) + " " +
         gnutls_cipher_get_name(gnutls_cipher_get(session_));
}

}  // namespace migrx
