#include "bench/payload_stream.h"

#include <algorithm>
#include <random>
#include <string>

namespace migrx::bench {
namespace {

void fill(Content content, std::byte* out, std::size_t bytes) {
  std::mt19937_64 random(11);
  std::vector<std::string> words;
  for (int i = 0; i < 600; ++i) {
    std::string word;
    for (uint64_t n = 2 + random() % 8; n > 0; --n) word += static_cast<char>('a' + random() % 26);
    words.push_back(word + (random() % 9 == 0 ? ".\n" : " "));
  }
  std::memset(out, 0, bytes);
  switch (content) {
    case Content::text:
      for (std::size_t at = 0; at < bytes;) {
        // Squared: some words are much more frequent than others.
        const double x = static_cast<double>(random() % 10'000) / 10'000;
        const std::string& word = words[static_cast<std::size_t>(x * x * static_cast<double>(words.size()))];
        const std::size_t n = std::min(word.size(), bytes - at);
        std::memcpy(out + at, word.data(), n);
        at += n;
      }
      break;
    case Content::binary:
      for (std::size_t at = 0; at + 32 <= bytes; at += 32) {
        const std::array<uint64_t, 4> record{0x7f3a'0000'0000U + (random() % 4096) * 64, at / 32,
                                             random() % 300, random() % 8 == 0 ? random() : 0};
        std::memcpy(out + at, record.data(), sizeof record);
      }
      break;
    case Content::sparse:
      for (std::size_t at = 0; at + 8 <= bytes; at += 128 + random() % 512 * 8) {
        const uint64_t word = random();
        std::memcpy(out + std::min(at, bytes - 8), &word, 8);
      }
      break;
    case Content::random:
      for (std::size_t at = 0; at < bytes; at += 8) {
        const uint64_t word = random();
        std::memcpy(out + at, &word, 8);
      }
      break;
  }
}

}  // namespace

PayloadStream::PayloadStream(Content content, test::MultifdMethod method) : pages(kPackets * kPacketBytes) {
  fill(content, pages.data(), pages.size());
  test::MultifdStreamBuilder builder(method);
  for (std::size_t packet = 0; packet < kPackets; ++packet) {
    std::vector<uint64_t> offsets;
    for (std::size_t i = 0; i < kMultifdPagesMax; ++i)
      offsets.push_back(packet * kPacketBytes + i * kPageBytes);
    payloads.push_back(builder.encode(offsets, [this](uint64_t offset) { return pages.data() + offset; }));
    bytes += payloads.back().size();
  }
}

}  // namespace migrx::bench
