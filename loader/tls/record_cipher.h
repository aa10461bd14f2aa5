// Opens (or seals) one TLS record after another, each in as many pieces as it comes in.
//
// AES-GCM runs on our own kernels where the CPU has AES instructions, and on OpenSSL elsewhere;
// ChaCha20-Poly1305 runs on OpenSSL. How a record's nonce and additional data are made differs between
// TLS 1.3 (RFC 8446, sections 5.2 and 5.3) and TLS 1.2 (RFC 5288, RFC 7905); this class knows both.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "dataplane/handoff/byte_order.h"

struct evp_cipher_ctx_st;

namespace migrx {

struct GcmKernels;
struct GcmKey;
struct GcmRecord;

enum class TlsVersion : uint8_t { tls12, tls13 };
enum class TlsSuite : uint8_t { aes_128_gcm, aes_256_gcm, chacha20_poly1305 };
[[nodiscard]] const char* to_string(TlsSuite suite) noexcept;

inline constexpr std::size_t kTlsTagBytes = 16;
inline constexpr std::size_t kTlsHeaderBytes = 5;       // type, version, length
inline constexpr std::size_t kTlsTextBytesMax = 16384;  // of one record (RFC 8446, section 5.1)
inline constexpr std::size_t kTlsRecordBytesMax = kTlsTextBytesMax + 256;  // after the header (section 5.2)

// One direction's secrets. Wiped when it goes; never printed.
struct TlsKeys {
  TlsVersion version = TlsVersion::tls13;
  TlsSuite suite = TlsSuite::aes_256_gcm;
  std::array<uint8_t, 32> key{};
  std::array<uint8_t, 12> iv{};  // TLS 1.2 with GCM uses the first four (the salt)
  uint64_t sequence = 0;         // of the next record
  TlsKeys() = default;
  TlsKeys(const TlsKeys&) = default;
  TlsKeys& operator=(const TlsKeys&) = default;
  ~TlsKeys();
};

// Used by one thread at a time.
class RecordCipher {
 public:
  // kernels: for AES-GCM, nullptr means OpenSSL. Allocates here only.
  explicit RecordCipher(const GcmKernels* kernels);
  ~RecordCipher();  // wipes
  RecordCipher(const RecordCipher&) = delete;
  RecordCipher& operator=(const RecordCipher&) = delete;

  // False: the library refuses the suite (a FIPS host refuses ChaCha20).
  [[nodiscard]] bool set_keys(const TlsKeys& keys) noexcept;
  // Bytes between a record's header and its ciphertext: 8 with TLS 1.2 and GCM, else none.
  [[nodiscard]] std::size_t explicit_bytes() const noexcept { return explicit_bytes_; }
  [[nodiscard]] TlsVersion version() const noexcept { return version_; }
  // Of the next record.
  [[nodiscard]] uint64_t sequence() const noexcept { return sequence_; }
  [[nodiscard]] const char* kernel_name() const noexcept;

  // The record with this header and, after it, these explicit_bytes(). ciphertext_bytes: without them
  // and the tag.
  void begin(const std::byte* header, const std::byte* explicit_nonce, std::size_t ciphertext_bytes) noexcept;
  // The record's next n bytes of ciphertext; their plaintext goes to dst, where the piece before ended, up to
  // 63 bytes of it not before the next piece or finish(). dst may be elsewhere once a multiple of 64 bytes
  // has been given. dst and src do not overlap. Hot.
  void decrypt(std::byte* dst, const std::byte* src, std::size_t n) noexcept;
  // The same, past the caches where our kernels run: for memory that nobody here reads soon. The record's
  // first dst is aligned to 64 bytes, and a multiple of them comes. Ordered before other stores by a fence
  // (PageWriter::fence()). Hot.
  void decrypt_streaming(std::byte* dst, const std::byte* src, std::size_t n) noexcept;
  // All of the record was given: is this its tag? In constant time. The sequence number moves on.
  [[nodiscard]] bool finish(const std::byte* tag) noexcept;

  // The other direction: a whole record of `text` with the content type `type` goes to `out`, which
  // has room for kTlsHeaderBytes + 8 + text + 1 + kTlsTagBytes. Returns its bytes. Only on an object
  // that opens nothing.
  std::size_t seal(uint8_t type, Bytes text, std::byte* out) noexcept;

 private:
  void nonce_of(const std::byte* explicit_nonce, uint8_t* nonce) const noexcept;

  const GcmKernels* const kernels_;
  const std::unique_ptr<GcmKey> gcm_key_;
  const std::unique_ptr<GcmRecord> gcm_;
  evp_cipher_ctx_st* const evp_;
  TlsVersion version_ = TlsVersion::tls13;
  TlsSuite suite_ = TlsSuite::aes_256_gcm;
  std::array<uint8_t, 12> iv_{};
  uint64_t sequence_ = 0;
  std::size_t explicit_bytes_ = 0;
  bool own_ = false;  // on our kernels
  bool sealing_ = false;
  bool evp_failed_ = false;
};

}  // namespace migrx
