#include "tests/loader/tls/test_pki.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

template <class Export>
std::string pem(Export&& to_datum) {
  gnutls_datum_t out{};
  EXPECT_GE(to_datum(&out), 0);
  std::string text(reinterpret_cast<char*>(out.data), out.size);
  gnutls_free(out.data);
  return text;
}

gnutls_x509_privkey_t new_key() {
  gnutls_x509_privkey_t key = nullptr;
  gnutls_x509_privkey_init(&key);
  EXPECT_GE(
      gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
      0);
  return key;
}

}  // namespace

struct TestPki::Authority {
  gnutls_x509_privkey_t key = new_key();
  gnutls_x509_crt_t certificate = nullptr;
  Authority(const std::string& name, long begins, long ends) {
    gnutls_x509_crt_init(&certificate);
    gnutls_x509_crt_set_version(certificate, 3);
    gnutls_x509_crt_set_serial(certificate, "\x01", 1);
    gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name.data(),
                                  static_cast<unsigned>(name.size()));
    gnutls_x509_crt_set_activation_time(certificate, std::time(nullptr) + begins);
    gnutls_x509_crt_set_expiration_time(certificate, std::time(nullptr) + ends);
    gnutls_x509_crt_set_basic_constraints(certificate, 1, -1);
    gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    gnutls_x509_crt_set_key(certificate, key);
    gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0);
  }
  ~Authority() {
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_privkey_deinit(key);
  }
};

TestPki::TestPki() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "migrx-pki-XXXXXX").string();  // mkdtemp's own form
  EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
  dir_ = pattern;
  authority_ = new Authority("authority of the tests", -7200, 30 * 86400);
  stranger_ = new Authority("somebody else", -7200, 30 * 86400);
  write("ca-cert.pem", pem([&](gnutls_datum_t* out) {
          return gnutls_x509_crt_export2(authority_->certificate, GNUTLS_X509_FMT_PEM, out);
        }));
}

TestPki::~TestPki() {
  delete authority_;
  delete stranger_;
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void TestPki::write(const std::string& name, const std::string& text) const {
  std::ofstream(path(name)) << text;
}

void TestPki::make(const Wish& wish) {
  const Authority& signer = wish.foreign ? *stranger_ : *authority_;
  gnutls_x509_privkey_t key = new_key();
  gnutls_x509_crt_t certificate = nullptr;
  gnutls_x509_crt_init(&certificate);
  gnutls_x509_crt_set_version(certificate, 3);
  const auto serial = static_cast<unsigned char>(2 + std::hash<std::string>{}(wish.file) % 100);
  gnutls_x509_crt_set_serial(certificate, &serial, 1);
  gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COUNTRY_NAME, 0, "GB", 2);
  gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, wish.common_name.data(),
                                static_cast<unsigned>(wish.common_name.size()));
  gnutls_x509_crt_set_activation_time(certificate, std::time(nullptr) + wish.begins_in_s);
  gnutls_x509_crt_set_expiration_time(certificate, std::time(nullptr) + wish.ends_in_s);
  gnutls_x509_crt_set_basic_constraints(certificate, wish.is_ca ? 1 : 0, -1);
  gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_ENCIPHERMENT);
  if (wish.purpose_client != 0) gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_CLIENT, 1);
  gnutls_x509_crt_set_key(certificate, key);
  EXPECT_GE(gnutls_x509_crt_sign2(certificate, signer.certificate, signer.key, GNUTLS_DIG_SHA256, 0), 0);
  write(wish.file + "-cert.pem", pem([&](gnutls_datum_t* out) {
          return gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, out);
        }));
  write(wish.file + "-key.pem",
        pem([&](gnutls_datum_t* out) { return gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, out); }));
  gnutls_x509_crt_deinit(certificate);
  gnutls_x509_privkey_deinit(key);
}

void TestPki::revoke(const std::string& file) {
  std::ifstream stream(path(file + "-cert.pem"));
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  const gnutls_datum_t data{reinterpret_cast<unsigned char*>(text.data()),
                            static_cast<unsigned>(text.size())};
  gnutls_x509_crt_t certificate = nullptr;
  gnutls_x509_crt_init(&certificate);
  EXPECT_GE(gnutls_x509_crt_import(certificate, &data, GNUTLS_X509_FMT_PEM), 0);
  gnutls_x509_crl_t list = nullptr;
  gnutls_x509_crl_init(&list);
  gnutls_x509_crl_set_version(list, 2);
  gnutls_x509_crl_set_crt(list, certificate, std::time(nullptr) - 10);
  gnutls_x509_crl_set_this_update(list, std::time(nullptr) - 10);
  gnutls_x509_crl_set_next_update(list, std::time(nullptr) + 86400);
  gnutls_privkey_t key = nullptr;
  gnutls_privkey_init(&key);
  gnutls_privkey_import_x509(key, authority_->key, 0);
  EXPECT_GE(gnutls_x509_crl_privkey_sign(list, authority_->certificate, key, GNUTLS_DIG_SHA256, 0), 0);
  write("ca-crl.pem",
        pem([&](gnutls_datum_t* out) { return gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, out); }));
  gnutls_privkey_deinit(key);
  gnutls_x509_crl_deinit(list);
  gnutls_x509_crt_deinit(certificate);
}

}  // namespace migrx
