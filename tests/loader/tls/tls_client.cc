#include "tests/loader/tls/tls_client.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace migrx {

TlsClient::TlsClient(const std::string& dir, const std::string& file, const std::string& priority,
                     const std::string& psk) {
  gnutls_init(&session_, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
  EXPECT_GE(gnutls_priority_set_direct(
                session_, (priority + (psk.empty() ? "" : ":+ECDHE-PSK:+DHE-PSK:+PSK")).c_str(), nullptr),
            0);
  if (psk.empty()) {
    gnutls_certificate_allocate_credentials(&x509_);
    gnutls_certificate_set_x509_trust_file(x509_, (dir + "/ca-cert.pem").c_str(), GNUTLS_X509_FMT_PEM);
    const std::string certificate = dir + "/" + file + "-cert.pem";
    if (std::filesystem::exists(certificate)) {
      EXPECT_GE(gnutls_certificate_set_x509_key_file(
                    x509_, certificate.c_str(), (dir + "/" + file + "-key.pem").c_str(), GNUTLS_X509_FMT_PEM),
                0);
      gnutls_certificate_set_flags(x509_, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
    }
    gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, x509_);
  } else {
    gnutls_psk_allocate_client_credentials(&psk_);
    const std::string user = psk.substr(0, psk.find(':'));
    std::string hex = psk.substr(psk.find(':') + 1);
    const gnutls_datum_t key{reinterpret_cast<unsigned char*>(hex.data()), static_cast<unsigned>(hex.size())};
    gnutls_psk_set_client_credentials(psk_, user.c_str(), &key, GNUTLS_PSK_KEY_HEX);
    gnutls_credentials_set(session_, GNUTLS_CRD_PSK, psk_);
  }
  transport_.attach(session_);
}

TlsClient::~TlsClient() {
  gnutls_deinit(session_);
  if (x509_ != nullptr) gnutls_certificate_free_credentials(x509_);
  if (psk_ != nullptr) gnutls_psk_free_client_credentials(psk_);
}

bool TlsClient::handshake(Bytes from_server) {
  transport_.give(from_server);
  const int result = gnutls_handshake(session_);
  failed = failed || (result < 0 && gnutls_error_is_fatal(result) != 0);
  return result == 0;
}

void TlsClient::write(Bytes text) {
  EXPECT_EQ(gnutls_record_send(session_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

void TlsClient::write_padded(Bytes text, std::size_t padding) {
  EXPECT_EQ(gnutls_record_send2(session_, text.data(), text.size(), padding, 0),
            static_cast<ssize_t>(text.size()));
}

void TlsClient::update_key() {
  EXPECT_EQ(gnutls_session_key_update(session_, 0), 0);
}

void TlsClient::bye() {
  (void)gnutls_bye(session_, GNUTLS_SHUT_WR);
}

std::string TlsClient::read(Bytes from_server) {
  transport_.give(from_server);
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = gnutls_record_recv(session_, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  return out;
}

std::vector<std::byte> TlsClient::take() {
  return transport_.take();
}

}  // namespace migrx
