#include "loader/tls/record_cipher.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <cstring>

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {
namespace {

const EVP_CIPHER* evp_cipher(TlsSuite suite) noexcept {
  switch (suite) {
    case TlsSuite::aes_128_gcm:
      return EVP_aes_128_gcm();
    case TlsSuite::aes_256_gcm:
      return EVP_aes_256_gcm();
    case TlsSuite::chacha20_poly1305:
      return EVP_chacha20_poly1305();
  }
  return nullptr;
}

std::size_t key_bytes(TlsSuite suite) noexcept {
  return suite == TlsSuite::aes_128_gcm ? 16 : 32;
}

const uint8_t* octets(const std::byte* p) noexcept {
  return reinterpret_cast<const uint8_t*>(p);
}

}  // namespace

const char* to_string(TlsSuite suite) noexcept {
  switch (suite) {
    case TlsSuite::aes_128_gcm:
      return "AES-128-GCM";
    case TlsSuite::aes_256_gcm:
      return "AES-256-GCM";
    case TlsSuite::chacha20_poly1305:
      return "CHACHA20-POLY1305";
  }
  return "?";
}

TlsKeys::~TlsKeys() {
  OPENSSL_cleanse(key.data(), key.size());
  OPENSSL_cleanse(iv.data(), iv.size());
}

RecordCipher::RecordCipher(const GcmKernels* kernels)
    : kernels_(kernels),
      gcm_key_(std::make_unique<GcmKey>()),
      gcm_(std::make_unique<GcmRecord>()),
      evp_(EVP_CIPHER_CTX_new()) {}

RecordCipher::~RecordCipher() {
  OPENSSL_cleanse(gcm_key_.get(), sizeof(GcmKey));
  OPENSSL_cleanse(gcm_.get(), sizeof(GcmRecord));
  OPENSSL_cleanse(iv_.data(), iv_.size());
  EVP_CIPHER_CTX_free(evp_);  // cleanses as well
}

const char* RecordCipher::kernel_name() const noexcept {
  return own_ ? kernels_->name : "openssl";
}

bool RecordCipher::set_keys(const TlsKeys& keys) noexcept {
  version_ = keys.version;
  suite_ = keys.suite;
  iv_ = keys.iv;
  sequence_ = keys.sequence;
  explicit_bytes_ = version_ == TlsVersion::tls12 && suite_ != TlsSuite::chacha20_poly1305 ? 8 : 0;
  own_ = kernels_ != nullptr && suite_ != TlsSuite::chacha20_poly1305;
  if (own_) {
    kernels_->expand(*gcm_key_, keys.key.data(), key_bytes(suite_));
    return true;
  }
  if (evp_ == nullptr) return false;
  EVP_CIPHER_CTX_reset(evp_);
  sealing_ = false;
  return EVP_DecryptInit_ex(evp_, evp_cipher(suite_), nullptr, keys.key.data(), nullptr) == 1;
}

// RFC 8446 section 5.3 and RFC 7905 section 2: the IV, with the sequence number in its last eight bytes. RFC
// 5288 section 3: the salt, then what the record brings.
void RecordCipher::nonce_of(const std::byte* explicit_nonce, uint8_t* nonce) const noexcept {
  std::memcpy(nonce, iv_.data(), iv_.size());
  if (explicit_bytes_ > 0) {
    std::memcpy(nonce + 4, explicit_nonce, 8);
    return;
  }
  uint64_t last = 0;
  std::memcpy(&last, nonce + 4, sizeof last);
  last ^= __builtin_bswap64(sequence_);
  std::memcpy(nonce + 4, &last, sizeof last);
}

void RecordCipher::begin(const std::byte* header, const std::byte* explicit_nonce,
                         std::size_t ciphertext_bytes) noexcept {
  std::array<uint8_t, 12> nonce{};
  nonce_of(explicit_nonce, nonce.data());
  std::array<uint8_t, kAesBlockBytes> additional{};
  std::size_t additional_bytes = kTlsHeaderBytes;
  if (version_ == TlsVersion::tls13) {
    std::memcpy(additional.data(), header, kTlsHeaderBytes);
  } else {  // RFC 5246 section 6.2.3.3
    additional_bytes = 13;
    for (unsigned i = 0; i < 8; ++i) additional[i] = static_cast<uint8_t>(sequence_ >> (56 - 8 * i));
    std::memcpy(additional.data() + 8, header, 3);
    additional[11] = static_cast<uint8_t>(ciphertext_bytes >> 8);
    additional[12] = static_cast<uint8_t>(ciphertext_bytes);
  }
  if (own_) {
    kernels_->begin(*gcm_key_, *gcm_, nonce.data(), additional.data(), additional_bytes);
    return;
  }
  int n = 0;
  evp_failed_ =
      EVP_CipherInit_ex(evp_, nullptr, nullptr, nullptr, nonce.data(), sealing_ ? 1 : 0) != 1 ||
      EVP_CipherUpdate(evp_, nullptr, &n, additional.data(), static_cast<int>(additional_bytes)) != 1;
}

void RecordCipher::decrypt(std::byte* dst, const std::byte* src, std::size_t n) noexcept {
  if (own_) {
    kernels_->decrypt(*gcm_key_, *gcm_, dst, src, n);
    return;
  }
  int done = 0;
  if (n > 0 &&
      EVP_CipherUpdate(evp_, reinterpret_cast<uint8_t*>(dst), &done, octets(src), static_cast<int>(n)) != 1)
    evp_failed_ = true;
}

void RecordCipher::decrypt_streaming(std::byte* dst, const std::byte* src, std::size_t n) noexcept {
  if (own_)
    kernels_->decrypt_streaming(*gcm_key_, *gcm_, dst, src, n);
  else
    decrypt(dst, src, n);
}

bool RecordCipher::finish(const std::byte* tag) noexcept {
  ++sequence_;
  if (own_) {
    std::array<uint8_t, kGcmTagBytes> right{};
    kernels_->decrypt_tag(*gcm_key_, *gcm_, right.data());
    return CRYPTO_memcmp(right.data(), tag, kTlsTagBytes) == 0;
  }
  std::array<uint8_t, kTlsTagBytes> given{};
  std::memcpy(given.data(), tag, given.size());
  std::array<uint8_t, kAesBlockBytes> rest{};
  int done = 0;
  return !evp_failed_ && EVP_CIPHER_CTX_ctrl(evp_, EVP_CTRL_AEAD_SET_TAG, kTlsTagBytes, given.data()) == 1 &&
         EVP_DecryptFinal_ex(evp_, rest.data(), &done) == 1;
}

std::size_t RecordCipher::seal(uint8_t type, Bytes text, std::byte* out) noexcept {
  sealing_ = true;
  const std::size_t inner = text.size() + (version_ == TlsVersion::tls13 ? 1 : 0);
  const std::size_t length = explicit_bytes_ + inner + kTlsTagBytes;
  // TLS 1.3 puts the type after the text (RFC 8446, section 5.2).
  out[0] = static_cast<std::byte>(version_ == TlsVersion::tls13 ? 23 : type);
  out[1] = std::byte{3};
  out[2] = std::byte{3};
  out[3] = static_cast<std::byte>(length >> 8);
  out[4] = static_cast<std::byte>(length);
  std::byte* at = out + kTlsHeaderBytes;
  for (unsigned i = 0; i < explicit_bytes_; ++i) *at++ = static_cast<std::byte>(sequence_ >> (56 - 8 * i));
  begin(out, out + kTlsHeaderBytes, inner);
  const auto encrypt = [&](const std::byte* src, std::size_t n) {
    int done = 0;
    if (own_)
      kernels_->encrypt(*gcm_key_, *gcm_, at, src, n);
    else if (n > 0)
      (void)EVP_CipherUpdate(evp_, reinterpret_cast<uint8_t*>(at), &done, octets(src), static_cast<int>(n));
    at += n;
  };
  encrypt(text.data(), text.size());
  const std::byte content{type};
  if (version_ == TlsVersion::tls13) encrypt(&content, 1);
  if (own_) {
    kernels_->encrypt_tag(*gcm_key_, *gcm_, reinterpret_cast<uint8_t*>(at));
  } else {
    int done = 0;
    (void)EVP_CipherFinal_ex(evp_, reinterpret_cast<uint8_t*>(at), &done);
    (void)EVP_CIPHER_CTX_ctrl(evp_, EVP_CTRL_AEAD_GET_TAG, kTlsTagBytes, at);
  }
  ++sequence_;
  return kTlsHeaderBytes + length;
}

}  // namespace migrx
