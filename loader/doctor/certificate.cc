#include "loader/doctor/certificate.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "numa/host_files.h"

namespace migrx {

bool certificate_expiry(const std::string& path, int64_t& expires_unix_s, std::string& problem) {
  std::string text = HostFiles().read(path).value_or("");
  constexpr std::size_t kTextMax = 64U << 10;
  if (text.empty() || text.size() > kTextMax) {
    problem = "cannot read " + path + ", or it is no certificate";
    return false;
  }
  gnutls_x509_crt_t certificate = nullptr;
  if (gnutls_x509_crt_init(&certificate) != GNUTLS_E_SUCCESS) {
    problem = "GnuTLS has no memory";
    return false;
  }
  const gnutls_datum_t data{reinterpret_cast<unsigned char*>(text.data()),
                            static_cast<unsigned>(text.size())};
  const int error = gnutls_x509_crt_import(certificate, &data, GNUTLS_X509_FMT_PEM);
  if (error == GNUTLS_E_SUCCESS) expires_unix_s = gnutls_x509_crt_get_expiration_time(certificate);
  gnutls_x509_crt_deinit(certificate);
  if (error == GNUTLS_E_SUCCESS && expires_unix_s != -1) return true;
  problem = path + " holds no X.509 certificate in PEM form: " + gnutls_strerror(error);
  return false;
}

}  // namespace migrx
