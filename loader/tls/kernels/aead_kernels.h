// The inner loops of opening TLS records with AES-GCM, one set per instruction set, chosen as the page
// kernels are (loader/ram/kernels/page_kernels.h). GCM is NIST SP 800-38D; the names are that document's.
//
// Plain arrays: code of the standard library that is compiled for a newer CPU could be merged into all
// of the program.
//
// A record comes in pieces, as packets do. Its state lives in one GcmRecord, so that each piece can be opened
// and its packet buffer given back before the next one comes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace migrx {

inline constexpr std::size_t kAesBlockBytes = 16;
inline constexpr std::size_t kGcmTagBytes = 16;
inline constexpr std::size_t kGcmNonceBytes = 12;
inline constexpr std::size_t kGcmPowersMax = 32;
inline constexpr std::size_t kGcmLineBytes = 64;  // of text that is worked on at once; a cache line

// What a key becomes; computed once per key. Holds secrets: wipe() it.
struct alignas(64) GcmKey {
  uint8_t round_keys[15][kAesBlockBytes];
  // H^32 … H^1, as the kernels multiply (byte-reversed, and multiplied by x once): a batch of n blocks uses
  // the last n.
  uint8_t powers[kGcmPowersMax][kAesBlockBytes];
  uint32_t rounds;  // 10 with AES-128, 14 with AES-256
};

// Where a record stands. Position 0 is the first byte after the additional data. Text is worked on in lines:
// what a piece leaves of one waits here for the next piece, so that a seam costs two small copies.
struct alignas(64) GcmRecord {
  // The one in the middle is text that came and is no whole line yet; it is copied a line at a time, whatever
  // of that is wanted, so there is a line on either side.
  uint8_t lines[3 * kGcmLineBytes];
  uint8_t hash[kAesBlockBytes];      // Y of GHASH, byte-reversed
  uint8_t counter[kAesBlockBytes];   // ICB of the next block, big-endian as AES takes it
  uint8_t tag_mask[kAesBlockBytes];  // E(K, J0)
  uint8_t* line_dst;                 // where the line goes
  uint32_t fill;                     // bytes of the line
  uint32_t additional_bytes;
  uint64_t text_bytes;
};

struct GcmKernels {
  const char* name;
  // key: 16 or 32 bytes.
  void (*expand)(GcmKey& out, const uint8_t* key, std::size_t key_bytes) noexcept;
  // A new record. additional: 16 bytes, of which the first additional_bytes (TLS has 5 or 13) are meant, the
  // others zero.
  void (*begin)(const GcmKey& key, GcmRecord& record, const uint8_t* nonce, const uint8_t* additional,
                std::size_t additional_bytes) noexcept;
  // n bytes of ciphertext from src become plaintext at dst, where the piece before ended; the last 63 of them
  // at most when more come, or with decrypt_tag(). dst may be elsewhere once a multiple of 64 bytes has been
  // given. No byte outside of either is touched. dst and src do not overlap.
  void (*decrypt)(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                  std::size_t n) noexcept;
  // The same by non-temporal stores; the record's first dst is aligned to 64 bytes, and a multiple of them
  // comes.
  void (*decrypt_streaming)(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                            std::size_t n) noexcept;
  // As decrypt, for a sender (migrx generate, tests).
  void (*encrypt)(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                  std::size_t n) noexcept;
  // The record's tag, once all of its bytes have been given.
  void (*decrypt_tag)(const GcmKey& key, GcmRecord& record, uint8_t* out) noexcept;
  void (*encrypt_tag)(const GcmKey& key, GcmRecord& record, uint8_t* out) noexcept;
};

// The best kernels that this CPU runs, unless MIGRX_FORCE_KERNEL names others: avx512 means vaes512,
// avx2 vaes256, sse2 aesni, scalar none. nullptr: none can run here or none is wanted; then OpenSSL
// opens the records.
[[nodiscard]] const GcmKernels* select_gcm_kernels() noexcept;
// nullptr: not built, or not supported by this CPU. name: as in the tables.
[[nodiscard]] const GcmKernels* find_gcm_kernels(const char* name) noexcept;

// Tables of this build; select.cc decides which may run.
#if defined(__x86_64__)
extern const GcmKernels kAesniGcmKernels;
extern const GcmKernels kVaes256GcmKernels;
extern const GcmKernels kVaes512GcmKernels;
#endif

}  // namespace migrx
