// Compressed multifd payloads and zero pages.
#include <benchmark/benchmark.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "bench/micro.h"
#include "bench/payload_stream.h"

namespace migrx::bench {
namespace {

// The product's decoder, fed in segments as they come from the ring; each packet's pages lie side by side.
void decode_payload(benchmark::State& state, Content content, test::MultifdMethod method,
                    MultifdCompression kind) {
  const PayloadStream stream(content, method);
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
  const PayloadStream stream(content, test::MultifdMethod::zlib);
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
  for (const auto& [name, content] : kContents) {
    const std::string end = std::string("/") + name;
    benchmark::RegisterBenchmark(("zlib_migrx" + end).c_str(), decode_payload, content,
                                 test::MultifdMethod::zlib, MultifdCompression::zlib);
    benchmark::RegisterBenchmark(("zlib_by_page" + end).c_str(), zlib_by_page, content);
    benchmark::RegisterBenchmark(("zstd_migrx" + end).c_str(), decode_payload, content,
                                 test::MultifdMethod::zstd, MultifdCompression::zstd);
  }
  for (const PageKernels* const kernels : supported_page_kernels())
    benchmark::RegisterBenchmark((std::string("zero_pages/") + kernels->name).c_str(), zero_pages, kernels);
}

}  // namespace migrx::bench
