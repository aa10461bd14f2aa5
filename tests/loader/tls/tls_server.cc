#include "tests/loader/tls/tls_server.h"

#include <gtest/gtest.h>

#include <array>

namespace migrx {

TlsServer::TlsServer(const std::string& dir, const std::string& file, const std::string& psk, bool verify)
    : psk_(psk), verify_(verify && psk.empty()) {
  gnutls_init(&session_, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
  EXPECT_GE(gnutls_priority_set_direct(session_, psk.empty() ? "NORMAL" : "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK",
                                       nullptr),
            0);
  if (psk.empty()) {
    gnutls_certificate_allocate_credentials(&x509_);
    gnutls_certificate_set_x509_trust_file(x509_, (dir + "/ca-cert.pem").c_str(), GNUTLS_X509_FMT_PEM);
    EXPECT_GE(
        gnutls_certificate_set_x509_key_file(x509_, (dir + "/" + file + "-cert.pem").c_str(),
                                             (dir + "/" + file + "-key.pem").c_str(), GNUTLS_X509_FMT_PEM),
        0);
    gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, x509_);
    gnutls_certificate_server_set_request(session_, GNUTLS_CERT_REQUEST);
  } else {
    gnutls_psk_allocate_server_credentials(&psk_credentials_);
    gnutls_psk_set_server_credentials_function(psk_credentials_, find_key);
    gnutls_credentials_set(session_, GNUTLS_CRD_PSK, psk_credentials_);
  }
  gnutls_session_set_ptr(session_, this);
  transport_.attach(session_);
}

TlsServer::~TlsServer() {
  gnutls_deinit(session_);
  if (x509_ != nullptr) gnutls_certificate_free_credentials(x509_);
  if (psk_credentials_ != nullptr) gnutls_psk_free_server_credentials(psk_credentials_);
}

int TlsServer::find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key) {
  const auto& server = *static_cast<const TlsServer*>(gnutls_session_get_ptr(session));
  const std::size_t colon = server.psk_.find(':');
  if (server.psk_.substr(0, colon) != user) return -1;
  std::string hex = server.psk_.substr(colon + 1);
  const gnutls_datum_t text{reinterpret_cast<unsigned char*>(hex.data()), static_cast<unsigned>(hex.size())};
  return gnutls_hex_decode2(&text, key);
}

void TlsServer::take(Bytes from_client) {
  transport_.give(from_client);
  if (failed) return;
  if (!open) {
    const int result = gnutls_handshake(session_);
    failed = result < 0 && gnutls_error_is_fatal(result) != 0;
    unsigned status = 0;
    if (result == 0 && verify_)
      failed = gnutls_certificate_verify_peers2(session_, &status) < 0 || status != 0;
    open = result == 0 && !failed;
    if (!open) return;
  }
  std::array<std::byte, 16384> some;
  for (ssize_t n; (n = gnutls_record_recv(session_, some.data(), some.size())) > 0;)
    text.insert(text.end(), some.begin(), some.begin() + n);
}

void TlsServer::write(Bytes bytes) {
  EXPECT_EQ(gnutls_record_send(session_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

void TlsServer::update_key() {
  EXPECT_EQ(gnutls_session_key_update(session_, 0), 0);
}

void TlsServer::bye() {
  EXPECT_EQ(gnutls_bye(session_, GNUTLS_SHUT_WR), 0);
}

std::vector<std::byte> TlsServer::output() {
  return transport_.take();
}

}  // namespace migrx
