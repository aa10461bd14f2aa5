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

// What a key becomes; computed once per key. Holds secrets: wipe() it.
struct alignas(64) GcmKey {
  uint8_t round_keys[15][kAesBlockBytes];
  // H^32 … H^1, as the kernels multiply (byte-reversed, and multiplied by x once): a batch of n blocks uses
  // the last n.
  uint8_t powers[kGcmPowersMax][kAesBlockBytes];
  uint32_t rounds;  // 10 with AES-128, 14 with AES-256
};

// Where a record stands. Position 0 is the first byte after the additional data.
struct alignas(64) GcmRecord {
  uint8_t hash[kAesBlockBytes];       // Y of GHASH, byte-reversed
  uint8_t counter[kAesBlockBytes];    // ICB of the next block, big-endian as AES takes it
  uint8_t tag_mask[kAesBlockBytes];   // E(K, J0)
  uint8_t keystream[kAesBlockBytes];  // of the block that a piece ended in
  uint8_t partial[kAesBlockBytes];    // ciphertext of that block so far
  uint32_t fill;                      // bytes of it; 0: the next byte begins a block
  uint32_t additional_bytes;
  uint64_t text_bytes;
};

struct GcmKernels {
  const char* name;
  // key: 16 or 32 bytes.
  void (*expand)(GcmKey& out, const uint8_t* key, std::size_t key_bytes) noexcept;
  // A new record. additional: at most 16 bytes (TLS has 5 or 13).
  void (*begin)(const GcmKey& key, GcmRecord& record, const uint8_t* nonce, const uint8_t* additional,
                std::size_t additional_bytes) noexcept;
  // n bytes of ciphertext from src become plaintext at dst. No byte outside of either is touched. dst and src
  // do not overlap, unless they are the same.
  void (*decrypt)(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                  std::size_t n) noexcept;
  // The same for a sender (migrx generate, tests).
  void (*encrypt)(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                  std::size_t n) noexcept;
  // The record's tag, once all of its bytes have been given.
  void (*tag)(const GcmKey& key, GcmRecord& record, uint8_t* out) noexcept;
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
