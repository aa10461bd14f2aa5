// GnuTLS's objects of TlsCredentials: only for this folder.
#pragma once

#include <gnutls/gnutls.h>

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

}  // namespace migrx
