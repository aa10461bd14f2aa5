#include "loader/tls/kernels/aead_kernels.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace migrx {
namespace {

std::vector<const GcmKernels*> kernels_here() {
  std::vector<const GcmKernels*> all;
  for (const char* const name : {"aesni", "vaes256", "vaes512"})
    if (const GcmKernels* const kernels = find_gcm_kernels(name)) all.push_back(kernels);
  return all;
}

std::vector<uint8_t> from_hex(const std::string& hex) {
  std::vector<uint8_t> out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  return out;
}

// As begin() takes it.
std::vector<uint8_t> padded(std::vector<uint8_t> additional) {
  additional.resize(kAesBlockBytes);
  return additional;
}

std::byte* bytes_of(std::vector<uint8_t>& v) {
  return reinterpret_cast<std::byte*>(v.data());
}
const std::byte* bytes_of(const std::vector<uint8_t>& v) {
  return reinterpret_cast<const std::byte*>(v.data());
}

struct Sealed {
  std::vector<uint8_t> ciphertext;
  std::vector<uint8_t> tag = std::vector<uint8_t>(16);
};

// The oracle: OpenSSL's own AES-GCM.
Sealed openssl_seal(const std::vector<uint8_t>& key, const std::vector<uint8_t>& nonce,
                    const std::vector<uint8_t>& additional, const std::vector<uint8_t>& text) {
  Sealed out;
  out.ciphertext.resize(text.size());
  EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
  int n = 0;
  EVP_EncryptInit_ex(context, key.size() == 16 ? EVP_aes_128_gcm() : EVP_aes_256_gcm(), nullptr, key.data(),
                     nonce.data());
  EVP_EncryptUpdate(context, nullptr, &n, additional.data(), static_cast<int>(additional.size()));
  EVP_EncryptUpdate(context, out.ciphertext.data(), &n, text.data(), static_cast<int>(text.size()));
  uint8_t rest[16];
  EVP_EncryptFinal_ex(context, rest, &n);
  EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out.tag.data());
  EVP_CIPHER_CTX_free(context);
  return out;
}

std::vector<uint8_t> random_bytes(std::mt19937& random, std::size_t n) {
  std::vector<uint8_t> out(n);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  return out;
}

class EachGcmKernel : public testing::TestWithParam<const GcmKernels*> {};
INSTANTIATE_TEST_SUITE_P(Kernels, EachGcmKernel, testing::ValuesIn(kernels_here()),
                         [](const auto& kernel) { return std::string(kernel.param->name); });

// The examples of the GCM specification (McGrew and Viega, appendix B), cases 3, 4 (128 bits) and 15, 16 (256
// bits).
TEST_P(EachGcmKernel, gives_the_specifications_examples) {
  const std::string text =
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aed"
      "f5aa0de657"
      "ba637b391aafd255";
  const struct {
    std::string key, additional, ciphertext, tag;
    std::size_t bytes;
  } cases[] = {
      {"feffe9928665731c6d6a8f9467308308", "",
       "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30"
       "b396a0aac97"
       "3d58e091473f5985",
       "4d5c2af327cd64a62cf35abd2ba6fab4", 64},
      {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "",
       "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61"
       "e6393ba7a0a"
       "bcc9f662898015ad",
       "b094dac5d93471bdec1a502270e3cc6c", 64},
  };
  for (const auto& c : cases) {
    GcmKey key{};
    GcmRecord record{};
    const auto raw = from_hex(c.key);
    GetParam()->expand(key, raw.data(), raw.size());
    const auto nonce = from_hex("cafebabefacedbaddecaf888");
    const std::vector<uint8_t> additional(16);
    GetParam()->begin(key, record, nonce.data(), additional.data(), 0);
    const auto plain = from_hex(text);
    std::vector<uint8_t> out(c.bytes);
    GetParam()->encrypt(key, record, bytes_of(out), bytes_of(plain), c.bytes);
    std::vector<uint8_t> tag(16);
    GetParam()->encrypt_tag(key, record, tag.data());
    EXPECT_EQ(out, from_hex(c.ciphertext));
    EXPECT_EQ(tag, from_hex(c.tag));
  }
}

TEST_P(EachGcmKernel, agrees_with_openssl_for_every_length_and_any_pieces) {
  std::mt19937 random(7);
  for (std::size_t length = 0; length < 1500; length += length < 300 ? 1 : 37) {
    const auto raw = random_bytes(random, length % 2 == 0 ? 16 : 32);
    const auto nonce = random_bytes(random, 12);
    const auto additional = random_bytes(random, length % 3 == 0 ? 5 : 13);
    const auto text = random_bytes(random, length);
    const Sealed right = openssl_seal(raw, nonce, additional, text);
    GcmKey key{};
    GetParam()->expand(key, raw.data(), raw.size());
    for (const bool sealing : {false, true}) {
      GcmRecord record{};
      GetParam()->begin(key, record, nonce.data(), padded(additional).data(), additional.size());
      const auto& in = sealing ? text : right.ciphertext;
      std::vector<uint8_t> out(length);
      for (std::size_t at = 0; at < length;) {
        const std::size_t n = std::min<std::size_t>(length - at, 1 + random() % 200);
        (sealing ? GetParam()->encrypt : GetParam()->decrypt)(key, record, bytes_of(out) + at,
                                                              bytes_of(in) + at, n);
        at += n;
      }
      std::vector<uint8_t> tag(16);
      (sealing ? GetParam()->encrypt_tag : GetParam()->decrypt_tag)(key, record, tag.data());
      ASSERT_EQ(out, sealing ? right.ciphertext : text) << length;
      ASSERT_EQ(tag, right.tag) << length;
    }
  }
}

// RFC 8446: records of 22, 81, 1361, 4113 bytes and the longest are what sources send; each may be torn
// anywhere.
TEST_P(EachGcmKernel, each_split_into_two_pieces_gives_the_same) {
  std::mt19937 random(11);
  for (const std::size_t length : {6UL, 65UL, 1345UL, 4097UL}) {
    const auto raw = random_bytes(random, 32);
    const auto nonce = random_bytes(random, 12);
    const auto additional = random_bytes(random, 5);
    const auto text = random_bytes(random, length);
    const Sealed right = openssl_seal(raw, nonce, additional, text);
    GcmKey key{};
    GetParam()->expand(key, raw.data(), raw.size());
    for (std::size_t cut = 0; cut <= length; ++cut) {
      GcmRecord record{};
      GetParam()->begin(key, record, nonce.data(), padded(additional).data(), additional.size());
      // Another alignment each time; a byte on either side shows what is written beyond the end.
      std::vector<uint8_t> out(length + 2 + cut % 64, 0xa5);
      std::byte* const dst = bytes_of(out) + 1 + cut % 64;
      GetParam()->decrypt(key, record, dst, bytes_of(right.ciphertext), cut);
      ASSERT_EQ(dst[cut], std::byte{0xa5}) << "written beyond " << cut;
      GetParam()->decrypt(key, record, dst + cut, bytes_of(right.ciphertext) + cut, length - cut);
      std::vector<uint8_t> tag(16);
      GetParam()->decrypt_tag(key, record, tag.data());
      ASSERT_EQ(0, std::memcmp(dst, text.data(), length)) << length << " cut at " << cut;
      ASSERT_EQ(tag, right.tag) << length << " cut at " << cut;
      ASSERT_EQ(out.back(), 0xa5);
      ASSERT_EQ(out[cut % 64], 0xa5);
    }
  }
}

// Pieces of any length to memory that is aligned as a page is.
TEST_P(EachGcmKernel, streaming_gives_the_same) {
  std::mt19937 random(13);
  for (const std::size_t lines : {1UL, 2UL, 7UL, 8UL, 9UL, 17UL, 64UL, 128UL}) {
    const std::size_t length = lines * kGcmLineBytes;
    const auto raw = random_bytes(random, lines % 2 == 0 ? 16 : 32);
    const auto nonce = random_bytes(random, 12);
    const auto additional = random_bytes(random, 5);
    const auto text = random_bytes(random, length + 1);
    const Sealed right = openssl_seal(raw, nonce, additional, text);
    GcmKey key{};
    GetParam()->expand(key, raw.data(), raw.size());
    for (int round = 0; round < 100; ++round) {
      GcmRecord record{};
      GetParam()->begin(key, record, nonce.data(), padded(additional).data(), 5);
      const std::unique_ptr<std::byte, decltype(&std::free)> page(
          static_cast<std::byte*>(std::aligned_alloc(kGcmLineBytes, length)), &std::free);
      for (std::size_t at = 0; at < length;) {
        const std::size_t n = std::min<std::size_t>(length - at, 1 + random() % (round < 50 ? 100 : 1500));
        const std::vector<uint8_t> piece(right.ciphertext.begin() + static_cast<std::ptrdiff_t>(at),
                                         right.ciphertext.begin() + static_cast<std::ptrdiff_t>(at + n));
        GetParam()->decrypt_streaming(key, record, page.get() + at, bytes_of(piece), n);
        at += n;
      }
      // The type of a TLS record: elsewhere.
      std::byte last{};
      GetParam()->decrypt(key, record, &last, bytes_of(right.ciphertext) + length, 1);
      std::vector<uint8_t> tag(16);
      GetParam()->decrypt_tag(key, record, tag.data());
      ASSERT_EQ(0, std::memcmp(page.get(), text.data(), length)) << lines;
      ASSERT_EQ(last, std::byte{text.back()});
      ASSERT_EQ(tag, right.tag) << lines;
    }
  }
}

TEST(GcmKernels, the_forced_kernel_is_the_one_that_runs) {
  ::setenv("MIGRX_FORCE_KERNEL", "scalar", 1);
  EXPECT_EQ(select_gcm_kernels(), nullptr);
  ::setenv("MIGRX_FORCE_KERNEL", "sse2", 1);
  EXPECT_EQ(select_gcm_kernels(), find_gcm_kernels("aesni"));
  ::setenv("MIGRX_FORCE_KERNEL", "avx2", 1);
  EXPECT_EQ(select_gcm_kernels(), find_gcm_kernels("vaes256"));
  ::unsetenv("MIGRX_FORCE_KERNEL");
}

}  // namespace
}  // namespace migrx
