// AES-GCM written once, against a thin vocabulary of vectors that each instruction set's file fills in:
//
//   Ops::Vector                          kWidth blocks of 16 bytes
//   load(p) store(p, v) xor3(a, b, c)    any alignment
//   spread(block)                        the same block in each lane
//   aes(v, key) aes_last(v, key)         one round on each lane
//   clmul<lo/hi>(a, b)                   carry-less product of chosen 64-bit halves, per lane
//   reversed(v)                          bytes of each lane in reverse order
//   counters(block)                      block + 0, 1, … in its last 32 bits (big-endian), per lane
//   fold(v)                              exclusive or of all lanes
//
// GHASH works on reversed blocks with powers of H that were multiplied by x once, so that a product needs no
// shift: the reduction is that of POLYVAL (RFC 8452, appendix A). A batch is multiplied by descending powers
// and reduced once.
//
// Ops must have internal linkage, and nothing of the standard library is used here: code compiled for a newer
// CPU must not be merged into a program that runs on an older one.
#pragma once

#include <immintrin.h>

#include "loader/tls/kernels/aead_kernels.h"

namespace migrx {

using Block = __m128i;

[[gnu::always_inline]] inline Block load_block(const void* p) noexcept {
  return _mm_loadu_si128(static_cast<const Block*>(p));
}
[[gnu::always_inline]] inline void store_block(void* p, Block v) noexcept {
  _mm_storeu_si128(static_cast<Block*>(p), v);
}
[[gnu::always_inline]] inline Block reverse_block(Block v) noexcept {
  return _mm_shuffle_epi8(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
// A product of 256 bits, in three parts: lo + mid * 2^64 + hi * 2^128.
[[gnu::always_inline]] inline Block reduce_product(Block lo, Block mid, Block hi) noexcept {
  const Block poly = _mm_set_epi64x(static_cast<long long>(0xc200000000000000ULL), 1);
  lo = _mm_xor_si128(lo, _mm_slli_si128(mid, 8));
  hi = _mm_xor_si128(hi, _mm_srli_si128(mid, 8));
  lo = _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(lo, poly, 0x10));
  lo = _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(lo, poly, 0x10));
  return _mm_xor_si128(hi, lo);
}
[[gnu::always_inline]] inline Block multiply(Block a, Block b) noexcept {
  return reduce_product(_mm_clmulepi64_si128(a, b, 0x00),
                        _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10)),
                        _mm_clmulepi64_si128(a, b, 0x11));
}
[[gnu::always_inline]] inline Block encrypt_block(const GcmKey& key, Block v) noexcept {
  v = _mm_xor_si128(v, load_block(key.round_keys[0]));
  for (uint32_t i = 1; i < key.rounds; ++i) v = _mm_aesenc_si128(v, load_block(key.round_keys[i]));
  return _mm_aesenclast_si128(v, load_block(key.round_keys[key.rounds]));
}
// Adds n to the last 32 bits, big-endian (inc32 of SP 800-38D, section 6.2).
[[gnu::always_inline]] inline Block advance_counter(Block counter, uint32_t n) noexcept {
  const Block swap = _mm_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm_shuffle_epi8(
      _mm_add_epi32(_mm_shuffle_epi8(counter, swap), _mm_set_epi32(static_cast<int>(n), 0, 0, 0)), swap);
}

// Vectors in arrays are in registers only where a compiler unrolls the loops over them, which none does by
// itself without -O3: the same code took twice the time.
#ifdef __clang__
#define MIGRX_UNROLL _Pragma("unroll")
#define MIGRX_UNROLL_ROUNDS _Pragma("unroll")
#else
#define MIGRX_UNROLL _Pragma("GCC unroll 8")
#define MIGRX_UNROLL_ROUNDS _Pragma("GCC unroll 14")
#endif

enum class GcmDirection : uint8_t { decrypt, encrypt };
enum class GcmStore : uint8_t { cached, streaming };

template <class Ops>
struct GcmLoop {
  using Vector = typename Ops::Vector;
  static constexpr std::size_t kWidth = Ops::kWidth;  // blocks per vector
  static constexpr std::size_t kVectors = Ops::kVectors;
  static constexpr std::size_t kVectorBytes = kWidth * kAesBlockBytes;
  static constexpr std::size_t kBatchBytes = kVectors * kVectorBytes;
  static constexpr std::size_t kLineVectors = kGcmLineBytes / kVectorBytes;
  static_assert(kVectors <= 8 && kBatchBytes / kAesBlockBytes <= kGcmPowersMax);
  static_assert(kGcmLineBytes % kVectorBytes == 0 && kBatchBytes % kGcmLineBytes == 0);

  // V vectors of text with one reduction. Decrypting, the text that is hashed is what comes;
  // encrypting, what goes.
  template <std::size_t V, uint32_t kRounds, GcmDirection kDirection, GcmStore kStore>
  [[gnu::always_inline]] static void vectors(const GcmKey& key, Block& hash, Block& counter, uint8_t* dst,
                                             const uint8_t* src) noexcept {
    const Vector first = Ops::spread(load_block(key.round_keys[0]));
    Vector stream[V];
    MIGRX_UNROLL
    for (std::size_t i = 0; i < V; ++i)
      stream[i] = Ops::exclusive_or(Ops::counters(counter, static_cast<uint32_t>(i * kWidth)), first);
    counter = advance_counter(counter, static_cast<uint32_t>(V * kWidth));
    MIGRX_UNROLL_ROUNDS
    for (uint32_t round = 1; round < kRounds; ++round) {
      const Vector round_key = Ops::spread(load_block(key.round_keys[round]));
      MIGRX_UNROLL
      for (std::size_t i = 0; i < V; ++i) stream[i] = Ops::aes(stream[i], round_key);
    }
    const Vector last = Ops::spread(load_block(key.round_keys[kRounds]));
    Vector hashed[V];
    MIGRX_UNROLL
    for (std::size_t i = 0; i < V; ++i) {
      const Vector text = Ops::load(src + i * kVectorBytes);
      const Vector out = Ops::aes_last(stream[i], Ops::exclusive_or(text, last));
      if constexpr (kStore == GcmStore::streaming)
        Ops::stream(dst + i * kVectorBytes, out);
      else
        Ops::store(dst + i * kVectorBytes, out);
      hashed[i] = Ops::reversed(kDirection == GcmDirection::decrypt ? text : out);
    }
    hashed[0] = Ops::exclusive_or(hashed[0], Ops::in_first_lane(hash));
    const auto* const powers = key.powers[kGcmPowersMax - V * kWidth];
    Vector lo{}, mid{}, hi{};
    MIGRX_UNROLL
    for (std::size_t i = 0; i < V; ++i) {
      const Vector power = Ops::load(powers + i * kVectorBytes);
      lo = Ops::exclusive_or(lo, Ops::template clmul<0x00>(hashed[i], power));
      hi = Ops::exclusive_or(hi, Ops::template clmul<0x11>(hashed[i], power));
      mid = Ops::exclusive_or(mid, Ops::exclusive_or(Ops::template clmul<0x01>(hashed[i], power),
                                                     Ops::template clmul<0x10>(hashed[i], power)));
    }
    hash = reduce_product(Ops::fold(lo), Ops::fold(mid), Ops::fold(hi));
  }

  // So many lines, fewer than a batch, as one step: its length is what a piece leaves over, and steps of
  // other lengths would wait for each other.
  template <std::size_t L, uint32_t kRounds, GcmDirection kDirection, GcmStore kStore>
  [[gnu::always_inline]] static void lines(std::size_t count, const GcmKey& key, Block& hash, Block& counter,
                                           uint8_t* dst, const uint8_t* src) noexcept {
    if constexpr (L > 0) {
      if (count == L)
        vectors<L * kLineVectors, kRounds, kDirection, kStore>(key, hash, counter, dst, src);
      else
        lines<L - 1, kRounds, kDirection, kStore>(count, key, hash, counter, dst, src);
    }
  }

  static void hash_block(const GcmKey& key, Block& hash, Block text) noexcept {
    hash = multiply(_mm_xor_si128(hash, reverse_block(text)), load_block(key.powers[kGcmPowersMax - 1]));
  }

  // A whole line, of which some bytes are wanted; the others are there, and there is room for them.
  [[gnu::always_inline]] static void copy_line(uint8_t* dst, const uint8_t* src) noexcept {
    MIGRX_UNROLL
    for (std::size_t i = 0; i < kLineVectors; ++i)
      Ops::store(dst + i * kVectorBytes, Ops::load(src + i * kVectorBytes));
  }

  template <uint32_t kRounds, GcmDirection kDirection, GcmStore kStore>
  static void text_of(const GcmKey& key, GcmRecord& record, uint8_t* dst, const uint8_t* src,
                      std::size_t n) noexcept {
    uint8_t* const line = record.lines + kGcmLineBytes;
    const uint8_t* const given = src;
    record.text_bytes += n;
    if (n < kGcmLineBytes) {
      const std::size_t room = kGcmLineBytes - record.fill;
      const std::size_t part = n < room ? n : room;
      if (record.fill == 0) record.line_dst = dst;
      __builtin_memcpy(line + record.fill, src, part);
      record.fill += static_cast<uint32_t>(part);
      if (part == n && record.fill < kGcmLineBytes) return;
      src += part;
      n -= part;
    } else if (record.fill != 0) {
      copy_line(line + record.fill, src);
      src += kGcmLineBytes - record.fill;
      n -= kGcmLineBytes - record.fill;
      record.fill = kGcmLineBytes;
    }
    Block hash = load_block(record.hash);
    Block counter = load_block(record.counter);
    if (record.fill != 0) {
      dst = record.line_dst;
      vectors<kLineVectors, kRounds, kDirection, kStore>(key, hash, counter, dst, line);
      dst += kGcmLineBytes;
    }
    while (n >= kBatchBytes) {
      vectors<kVectors, kRounds, kDirection, kStore>(key, hash, counter, dst, src);
      dst += kBatchBytes;
      src += kBatchBytes;
      n -= kBatchBytes;
    }
    const std::size_t whole = n / kGcmLineBytes;
    lines<kBatchBytes / kGcmLineBytes - 1, kRounds, kDirection, kStore>(whole, key, hash, counter, dst, src);
    dst += whole * kGcmLineBytes;
    src += whole * kGcmLineBytes;
    n -= whole * kGcmLineBytes;
    store_block(record.hash, hash);
    store_block(record.counter, counter);
    record.fill = static_cast<uint32_t>(n);
    record.line_dst = dst;
    if (n == 0) return;
    // The piece's last bytes. Those before them come along, unless the piece is too short for that.
    if (static_cast<std::size_t>(src + n - given) >= kGcmLineBytes)
      copy_line(line + n - kGcmLineBytes, src + n - kGcmLineBytes);
    else
      __builtin_memcpy(line, src, n);
  }

  template <GcmDirection kDirection, GcmStore kStore>
  static void text(const GcmKey& key, GcmRecord& record, std::byte* to, const std::byte* from,
                   std::size_t n) noexcept {
    auto* const dst = reinterpret_cast<uint8_t*>(to);
    const auto* const src = reinterpret_cast<const uint8_t*>(from);
    if (key.rounds == 14)
      text_of<14, kDirection, kStore>(key, record, dst, src, n);
    else
      text_of<10, kDirection, kStore>(key, record, dst, src, n);
  }

  // The line that the record ends in.
  template <GcmDirection kDirection>
  static void last_line(const GcmKey& key, GcmRecord& record) noexcept {
    Block hash = load_block(record.hash);
    Block counter = load_block(record.counter);
    for (uint32_t at = 0; at < record.fill; at += kAesBlockBytes) {
      const std::size_t n = record.fill - at < kAesBlockBytes ? record.fill - at : kAesBlockBytes;
      uint8_t in[kAesBlockBytes] = {};
      __builtin_memcpy(in, record.lines + kGcmLineBytes + at, n);
      uint8_t out[kAesBlockBytes];
      store_block(out, _mm_xor_si128(load_block(in), encrypt_block(key, counter)));
      counter = advance_counter(counter, 1);
      __builtin_memcpy(record.line_dst + at, out, n);
      if constexpr (kDirection == GcmDirection::encrypt) {
        for (std::size_t i = 0; i < n; ++i) in[i] = out[i];
      }
      hash_block(key, hash, load_block(in));
    }
    record.fill = 0;
    store_block(record.hash, hash);
  }

  static void decrypt(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                      std::size_t n) noexcept {
    text<GcmDirection::decrypt, GcmStore::cached>(key, record, dst, src, n);
  }
  static void decrypt_streaming(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                                std::size_t n) noexcept {
    text<GcmDirection::decrypt, GcmStore::streaming>(key, record, dst, src, n);
  }
  static void encrypt(const GcmKey& key, GcmRecord& record, std::byte* dst, const std::byte* src,
                      std::size_t n) noexcept {
    text<GcmDirection::encrypt, GcmStore::cached>(key, record, dst, src, n);
  }

  // RoundKey i of AES-256 needs the two before it, of AES-128 the one before it (FIPS 197, section 5.2).
  [[gnu::always_inline]] static Block expand_with(Block before, Block word) noexcept {
    before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
    before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
    before = _mm_xor_si128(before, _mm_slli_si128(before, 4));
    return _mm_xor_si128(before, word);
  }
  template <int kConstant>
  [[gnu::always_inline]] static Block rotated(Block v) noexcept {
    return _mm_shuffle_epi32(_mm_aeskeygenassist_si128(v, kConstant), 0xff);
  }
  [[gnu::always_inline]] static Block unrotated(Block v) noexcept {
    return _mm_shuffle_epi32(_mm_aeskeygenassist_si128(v, 0), 0xaa);
  }

  static void expand(GcmKey& out, const uint8_t* bytes, std::size_t key_bytes) noexcept {
    Block k[15];
    k[0] = load_block(bytes);
    if (key_bytes == 16) {
      out.rounds = 10;
      k[1] = expand_with(k[0], rotated<0x01>(k[0]));
      k[2] = expand_with(k[1], rotated<0x02>(k[1]));
      k[3] = expand_with(k[2], rotated<0x04>(k[2]));
      k[4] = expand_with(k[3], rotated<0x08>(k[3]));
      k[5] = expand_with(k[4], rotated<0x10>(k[4]));
      k[6] = expand_with(k[5], rotated<0x20>(k[5]));
      k[7] = expand_with(k[6], rotated<0x40>(k[6]));
      k[8] = expand_with(k[7], rotated<0x80>(k[7]));
      k[9] = expand_with(k[8], rotated<0x1b>(k[8]));
      k[10] = expand_with(k[9], rotated<0x36>(k[9]));
    } else {
      out.rounds = 14;
      k[1] = load_block(bytes + kAesBlockBytes);
      k[2] = expand_with(k[0], rotated<0x01>(k[1]));
      k[3] = expand_with(k[1], unrotated(k[2]));
      k[4] = expand_with(k[2], rotated<0x02>(k[3]));
      k[5] = expand_with(k[3], unrotated(k[4]));
      k[6] = expand_with(k[4], rotated<0x04>(k[5]));
      k[7] = expand_with(k[5], unrotated(k[6]));
      k[8] = expand_with(k[6], rotated<0x08>(k[7]));
      k[9] = expand_with(k[7], unrotated(k[8]));
      k[10] = expand_with(k[8], rotated<0x10>(k[9]));
      k[11] = expand_with(k[9], unrotated(k[10]));
      k[12] = expand_with(k[10], rotated<0x20>(k[11]));
      k[13] = expand_with(k[11], unrotated(k[12]));
      k[14] = expand_with(k[12], rotated<0x40>(k[13]));
    }
    for (uint32_t i = 0; i <= out.rounds; ++i) store_block(out.round_keys[i], k[i]);
    // H, reversed and multiplied by x in the field of POLYVAL: a shift, and x^128 = x^127 + x^126 + x^121
    // + 1.
    const Block h = reverse_block(encrypt_block(out, _mm_setzero_si128()));
    const Block carry = _mm_srli_epi64(h, 63);
    const Block doubled = _mm_or_si128(_mm_slli_epi64(h, 1), _mm_slli_si128(carry, 8));
    const Block top =
        _mm_sub_epi64(_mm_setzero_si128(), _mm_srli_si128(carry, 8));  // all ones when x^127 was there
    const Block mask = _mm_unpacklo_epi64(top, top);
    const Block poly = _mm_set_epi64x(static_cast<long long>(0xc200000000000000ULL), 1);
    const Block one = _mm_xor_si128(doubled, _mm_and_si128(mask, poly));
    Block power = one;
    for (std::size_t i = kGcmPowersMax; i-- > 0; power = multiply(power, one))
      store_block(out.powers[i], power);
  }

  static void begin(const GcmKey& key, GcmRecord& record, const uint8_t* nonce, const uint8_t* additional,
                    std::size_t additional_bytes) noexcept {
    // J0 of a nonce of 96 bits. Whole words: bytes that were stored one by one are not there for a wider
    // load.
    uint64_t low = 0;
    uint32_t high = 0;
    __builtin_memcpy(&low, nonce, 8);
    __builtin_memcpy(&high, nonce + 8, 4);
    const Block j0 =
        _mm_set_epi64x(static_cast<long long>(uint64_t{1} << 56 | high), static_cast<long long>(low));
    store_block(record.tag_mask, encrypt_block(key, j0));
    store_block(record.counter, advance_counter(j0, 1));
    Block hash = _mm_setzero_si128();
    if (additional_bytes > 0) hash_block(key, hash, load_block(additional));
    store_block(record.hash, hash);
    record.fill = 0;
    record.additional_bytes = static_cast<uint32_t>(additional_bytes);
    record.text_bytes = 0;
  }

  template <GcmDirection kDirection>
  static void tag(const GcmKey& key, GcmRecord& record, uint8_t* out) noexcept {
    last_line<kDirection>(key, record);
    Block hash = load_block(record.hash);
    const Block lengths = _mm_set_epi64x(static_cast<long long>(8 * uint64_t{record.additional_bytes}),
                                         static_cast<long long>(8 * record.text_bytes));
    hash = multiply(_mm_xor_si128(hash, lengths), load_block(key.powers[kGcmPowersMax - 1]));
    store_block(out, _mm_xor_si128(reverse_block(hash), load_block(record.tag_mask)));
  }
};

}  // namespace migrx
