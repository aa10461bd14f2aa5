// Compressed multifd payloads and zero pages.
#include <benchmark/benchmark.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "bench/micro.h"
#include "loader/multifd/decoder.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::bench {
namespace {

enum class Content { text, binary, sparse, random };

// Pages such as guests have: words of a small vocabulary; records of counters, pointers and flags; a few
// bytes in zeros; and what does not compress.
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

constexpr std::size_t kPackets = 16;
constexpr std::size_t kPacketBytes = std::size_t{kMultifdPagesMax} * kPageBytes;

struct Stream {
  Stream(Content content, test::MultifdMethod method) : pages(kPackets * kPacketBytes) {
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
  Region pages;
  std::vector<std::vector<std::byte>> payloads;
  std::size_t bytes = 0;
};

// The product's decoder, fed in segments as they come from the ring; each packet's pages lie side by side.
void decode(benchmark::State& state, Content content, test::MultifdMethod method, MultifdCompression kind) {
  const Stream stream(content, method);
  const Region guest(stream.pages.size());
  const PageKernels& kernels = *supported_page_kernels().back();
  const auto run = [&] {
    const std::unique_ptr<PageDecoder> decoder = make_page_decoder(kind, kernels);
    for (std::size_t packet = 0; packet < kPackets; ++packet) {
      const std::vector<std::byte>& payload = stream.payloads[packet];
      const PageRun pages{guest.data() + packet * kPacketBytes, static_cast<uint32_t>(kPacketBytes)};
      bool ok = decoder->begin({&pages, 1}, static_cast<uint32_t>(payload.size())) == DecodeStatus::ok;
      for (std::size_t at = 0; ok && at < payload.size(); at += 1448)
        ok = decoder->feed(Bytes{payload}.subspan(at, std::min<std::size_t>(1448, payload.size() - at))) ==
             DecodeStatus::ok;
      require(ok && decoder->finish() == DecodeStatus::ok, "the payload is accepted");
    }
    kernels.fence();
  };
  run();
  require(std::memcmp(guest.data(), stream.pages.data(), guest.size()) == 0, "the pages");
  for (auto _ : state) run();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(guest.size()));
  state.counters["compressed to"] = static_cast<double>(stream.bytes) / static_cast<double>(guest.size());
}

// zlib as a QEMU destination uses it (migration/multifd-zlib.c): the whole payload first, then page by page.
void zlib_by_page(benchmark::State& state, Content content) {
  const Stream stream(content, test::MultifdMethod::zlib);
  const Region guest(stream.pages.size());
  const auto run = [&] {
    z_stream z{};
    require(inflateInit(&z) == Z_OK, "inflateInit");
    for (std::size_t packet = 0; packet < kPackets; ++packet) {
      const std::vector<std::byte>& payload = stream.payloads[packet];
      z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(payload.data()));
      z.avail_in = static_cast<uInt>(payload.size());
      for (std::size_t i = 0; i < kMultifdPagesMax; ++i) {
        z.next_out = reinterpret_cast<Bytef*>(guest.data() + packet * kPacketBytes + i * kPageBytes);
        z.avail_out = kPageBytes;
        const int flush = i + 1 == kMultifdPagesMax ? Z_SYNC_FLUSH : Z_NO_FLUSH;
        require(inflate(&z, flush) == Z_OK && z.avail_out == 0, "a page");
      }
    }
    inflateEnd(&z);
  };
  run();
  require(std::memcmp(guest.data(), stream.pages.data(), guest.size()) == 0, "the pages");
  for (auto _ : state) run();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(guest.size()));
}

void zero_pages(benchmark::State& state, const PageKernels* kernels) {
  const Region guest(64 << 20);
  const auto run = [&] {
    for (std::size_t at = 0; at < guest.size(); at += kPageBytes)
      kernels->clear(guest.data() + at, kPageBytes);
    kernels->fence();
  };
  run();
  require(kernels->is_zero(guest.data(), guest.size()), "zeros");
  for (auto _ : state) run();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(guest.size()));
}

}  // namespace

void register_payload_benchmarks() {
  const std::array<std::pair<const char*, Content>, 4> contents{{{"text", Content::text},
                                                                 {"binary", Content::binary},
                                                                 {"sparse", Content::sparse},
                                                                 {"random", Content::random}}};
  for (const auto& [name, content] : contents) {
    const std::string end = std::string("/") + name;
    benchmark::RegisterBenchmark(("zlib_migrx" + end).c_str(), decode, content, test::MultifdMethod::zlib,
                                 MultifdCompression::zlib);
    benchmark::RegisterBenchmark(("zlib_by_page" + end).c_str(), zlib_by_page, content);
    benchmark::RegisterBenchmark(("zstd_migrx" + end).c_str(), decode, content, test::MultifdMethod::zstd,
                                 MultifdCompression::zstd);
  }
  for (const PageKernels* const kernels : supported_page_kernels())
    benchmark::RegisterBenchmark((std::string("zero_pages/") + kernels->name).c_str(), zero_pages, kernels);
}

}  // namespace migrx::bench
