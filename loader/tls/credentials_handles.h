// GnuTLS's objects of TlsCredentials: only for this folder.
#pragma once

#include <gnutls/gnutls.h>

#include <string>

#include "loader/tls/credentials.h"
#include "loader/tls/psk_keys.h"

namespace migrx {

struct TlsCredentials::Handles {
  gnutls_certificate_credentials_t x509 = nullptr;
  gnutls_psk_server_credentials_t psk = nullptr;
  gnutls_psk_client_credentials_t psk_client = nullptr;
  gnutls_priority_t priority = nullptr;
  PskKeys psk_keys;
};

// Why a chain of certificates is not good: `status` as GnuTLS's verification gives it.
[[nodiscard]] inline std::string verification_text(unsigned status) {
  gnutls_datum_t text{};
  (void)gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
  std::string why = text.data != nullptr ? reinterpret_cast<const char*>(text.data) : "not verified";
  gnutls_free(text.data);
  return why;
}

}  // namespace migrx
