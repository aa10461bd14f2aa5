// Decoding straight into guest pages, beside the product's way through a private buffer and full-line stores
// (into/buffer). Only to know what that buffer costs or saves: with into/pages look-back reads guest memory,
// which other channels may write meanwhile (loader/multifd/zlib_decoder.h); with into/window it does not.
// Guest memory is of hugepages, larger than the last-level cache, and walked through from packet to packet.
//
//   build/bench/micro --benchmark_filter=^into/ --benchmark_enable_random_interleaving=true
//     --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>
#include <isa-l/igzip_lib.h>
#define ZSTD_STATIC_LINKING_ONLY  // block by block
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/micro.h"
#include "bench/payload_stream.h"
#include "bench/pipeline/memory.h"
#include "loader/ram/inflate_page.h"

namespace migrx::bench {
namespace {

constexpr std::size_t kStreamBytes = kPackets * kPacketBytes;
constexpr std::size_t kSegment = 1448;

using test::MultifdMethod;

// What all of these benchmarks share, made when the first of them runs.
class Shared {
 public:
  explicit Shared(std::size_t guest_bytes) : guest_bytes_(guest_bytes) {}
  [[nodiscard]] HugeRegion& guest() {
    if (guest_ == nullptr) guest_ = std::make_unique<HugeRegion>(guest_bytes_);
    return *guest_;
  }
  [[nodiscard]] const PayloadStream& stream(Content content, MultifdMethod method) {
    std::unique_ptr<PayloadStream>& stream = streams_[{content, method}];
    if (stream == nullptr) stream = std::make_unique<PayloadStream>(content, method);
    return *stream;
  }

 private:
  const std::size_t guest_bytes_;
  std::unique_ptr<HugeRegion> guest_;
  std::map<std::pair<Content, MultifdMethod>, std::unique_ptr<PayloadStream>> streams_;
};

// A way to decode one channel: each packet's payload to consecutive guest memory.
class Way {
 public:
  virtual ~Way() = default;
  virtual void packet(const std::vector<std::byte>& payload, std::byte* pages) = 0;
  virtual void end() {}
};

// The product's decoders, fed in segments.
class Product final : public Way {
 public:
  explicit Product(MultifdCompression method)
      : decoder_(make_page_decoder(method, *supported_page_kernels().back())) {}
  void packet(const std::vector<std::byte>& payload, std::byte* pages) override {
    const PageRun run{pages, static_cast<uint32_t>(kPacketBytes)};
    bool ok = decoder_->begin({&run, 1}, static_cast<uint32_t>(payload.size())) == DecodeStatus::ok;
    for (std::size_t at = 0; ok && at < payload.size(); at += kSegment)
      ok = decoder_->feed(Bytes{payload}.subspan(at, std::min(kSegment, payload.size() - at))) ==
           DecodeStatus::ok;
    require(ok && decoder_->finish() == DecodeStatus::ok, "the payload is accepted");
  }
  void end() override { supported_page_kernels().back()->fence(); }

 private:
  const std::unique_ptr<PageDecoder> decoder_;
};

// Segments put together to pieces of input, as the product does.
class Gathered {
 public:
  explicit Gathered(std::size_t piece) : buffer_(piece) {}
  template <typename Take>
  void each(const std::vector<std::byte>& payload, const Take& take) {
    std::size_t filled = 0;
    for (std::size_t at = 0; at < payload.size();) {
      const std::size_t n = std::min({kSegment, payload.size() - at, buffer_.size() - filled});
      std::memcpy(buffer_.data() + filled, payload.data() + at, n);
      filled += n;
      at += n;
      if (filled < buffer_.size() && at < payload.size()) continue;
      take(Bytes{buffer_}.first(filled));
      filled = 0;
    }
  }

 private:
  std::vector<std::byte> buffer_;
};

// isal_inflate to the pages themselves. What lies behind the last byte of them goes nowhere: the library gets
// a byte of its own there, since the flush marker is still to be read.
class ZlibInPlace final : public Way {
 public:
  explicit ZlibInPlace(std::size_t piece) : gathered_(piece) {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_DEFLATE;
  }
  void packet(const std::vector<std::byte>& payload, std::byte* pages) override {
    std::size_t left = kPacketBytes;
    gathered_.each(payload, [&](Bytes in) {
      const std::size_t header = first_ ? 2 : 0;
      first_ = false;
      state_->next_in = const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(in.data() + header));
      state_->avail_in = static_cast<uint32_t>(in.size() - header);
      do {
        uint8_t beyond = 0;
        const auto room = static_cast<uint32_t>(std::max<std::size_t>(left, 1));
        state_->next_out = left > 0 ? reinterpret_cast<uint8_t*>(pages + kPacketBytes - left) : &beyond;
        state_->avail_out = room;
        require(isal_inflate(state_.get()) >= 0, "the payload is accepted");
        const std::size_t produced = room - state_->avail_out;
        require(produced <= left, "no byte too many");
        left -= produced;
      } while (state_->avail_out == 0);
    });
    require(left == 0, "all of the pages");
  }

 private:
  const std::unique_ptr<inflate_state> state_ = std::make_unique<inflate_state>();
  Gathered gathered_;
  bool first_ = true;
};

// What libzstd gives out, stored in the pages by the library itself.
class ZstdFromWindow final : public Way {
 public:
  ~ZstdFromWindow() override { ZSTD_freeDCtx(context_); }
  void packet(const std::vector<std::byte>& payload, std::byte* pages) override {
    ZSTD_outBuffer out{pages, kPacketBytes, 0};
    for (std::size_t at = 0; at < payload.size(); at += kSegment) {
      ZSTD_inBuffer in{payload.data() + at, std::min(kSegment, payload.size() - at), 0};
      for (std::size_t before = out.pos + 1; in.pos < in.size || (before != out.pos && out.pos < out.size);) {
        before = out.pos;
        require(ZSTD_isError(ZSTD_decompressStream(context_, &out, &in)) == 0, "the payload is accepted");
      }
    }
    require(out.pos == out.size, "all of the pages");
  }

 private:
  ZSTD_DCtx* const context_ = ZSTD_createDCtx();
};

// libzstd's blocks to the pages themselves; its window is then all of guest memory before them, so packets
// have to lie side by side for as long as the window is.
class ZstdInPlace final : public Way {
 public:
  ZstdInPlace() { ZSTD_decompressBegin(context_); }
  ~ZstdInPlace() override { ZSTD_freeDCtx(context_); }
  void packet(const std::vector<std::byte>& payload, std::byte* pages) override {
    std::size_t left = kPacketBytes;
    Gathered{payload.size()}.each(payload, [&](Bytes in) {
      while (!in.empty()) {
        const std::size_t n = ZSTD_nextSrcSizeToDecompress(context_);
        require(n <= in.size(), "a packet ends where a block does");
        const std::size_t produced =
            ZSTD_decompressContinue(context_, pages + kPacketBytes - left, left, in.data(), n);
        require(ZSTD_isError(produced) == 0, "the payload is accepted");
        left -= produced;
        in = in.subspan(n);
      }
    });
    require(left == 0, "all of the pages");
  }

 private:
  ZSTD_DCtx* const context_ = ZSTD_createDCtx();
};

void decode(benchmark::State& state, const std::shared_ptr<Shared>& shared, Content content,
            MultifdMethod method, const std::function<std::unique_ptr<Way>()>& make) {
  const PayloadStream& stream = shared->stream(content, method);
  HugeRegion& guest = shared->guest();
  std::size_t place = 0;
  const auto run = [&] {
    const std::unique_ptr<Way> way = make();
    for (std::size_t packet = 0; packet < kPackets; ++packet)
      way->packet(stream.payloads[packet], guest.data() + place + packet * kPacketBytes);
    way->end();
  };
  std::memset(guest.data(), 0xff, kStreamBytes);
  run();
  require(std::memcmp(guest.data(), stream.pages.data(), kStreamBytes) == 0, "the pages");
  for (auto _ : state) {
    place = (place + kStreamBytes) % guest.size();
    run();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kStreamBytes));
  state.SetLabel(std::string("pages of ") + guest.pages());
}

// Streams of one page each: COMPRESS_PAGE, and the multifd methods of accelerators.
void inflate_pages(benchmark::State& state, const std::shared_ptr<Shared>& shared, Content content,
                   bool in_place) {
  const Region& pages = shared->stream(content, MultifdMethod::zlib).pages;
  HugeRegion& guest = shared->guest();
  constexpr std::size_t kCount = 512;
  std::vector<std::vector<std::byte>> compressed(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    uLongf bytes = compressBound(kPageBytes);
    compressed[i].resize(bytes);
    require(compress2(reinterpret_cast<Bytef*>(compressed[i].data()), &bytes,
                      reinterpret_cast<const Bytef*>(pages.data() + i * kPageBytes), kPageBytes, 1) == Z_OK,
            "compress2");
    compressed[i].resize(bytes);
  }
  const PageKernels& kernels = *supported_page_kernels().back();
  PageInflater inflater(kernels);
  const auto own = std::make_unique<inflate_state>();
  std::size_t place = 0;
  const auto run = [&] {
    for (std::size_t i = 0; i < kCount; ++i) {
      std::byte* const page = guest.data() + place + i * kPageBytes;
      if (!in_place) {
        require(inflater.inflate(PageFormat::zlib, compressed[i], page) == InflateStatus::ok, "a page");
        continue;
      }
      isal_inflate_init(own.get());
      own->crc_flag = ISAL_ZLIB;
      own->next_in = reinterpret_cast<uint8_t*>(compressed[i].data());
      own->avail_in = static_cast<uint32_t>(compressed[i].size());
      own->next_out = reinterpret_cast<uint8_t*>(page);
      own->avail_out = kPageBytes;
      require(isal_inflate_stateless(own.get()) == ISAL_DECOMP_OK && own->avail_out == 0, "a page");
    }
    kernels.fence();
  };
  std::memset(guest.data(), 0xff, kCount * kPageBytes);
  run();
  require(std::memcmp(guest.data(), pages.data(), kCount * kPageBytes) == 0, "the pages");
  for (auto _ : state) {
    place = (place + kCount * kPageBytes) % guest.size();
    run();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kCount * kPageBytes));
}

}  // namespace

void register_in_place_benchmarks(std::size_t guest_mib) {
  // Whole streams, one at least.
  const auto shared =
      std::make_shared<Shared>(std::max((guest_mib << 20) / kStreamBytes, std::size_t{1}) * kStreamBytes);
  const auto add = [&shared](const std::string& name, Content content, MultifdMethod method,
                             const std::function<std::unique_ptr<Way>()>& make) {
    benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& state) { decode(state, shared, content, method, make); });
  };
  for (const auto& [name, content] : kContents) {
    const std::string end = std::string("/") + name;
    add("into/buffer/zlib" + end, content, MultifdMethod::zlib,
        [] { return std::make_unique<Product>(MultifdCompression::zlib); });
    add("into/pages/zlib/64K" + end, content, MultifdMethod::zlib,
        [] { return std::make_unique<ZlibInPlace>(64 << 10); });
    add("into/pages/zlib/packet" + end, content, MultifdMethod::zlib,
        [] { return std::make_unique<ZlibInPlace>(1 << 20); });
    add("into/buffer/zstd" + end, content, MultifdMethod::zstd,
        [] { return std::make_unique<Product>(MultifdCompression::zstd); });
    add("into/window/zstd" + end, content, MultifdMethod::zstd,
        [] { return std::make_unique<ZstdFromWindow>(); });
    add("into/pages/zstd" + end, content, MultifdMethod::zstd,
        [] { return std::make_unique<ZstdInPlace>(); });
    for (const bool in_place : {false, true})
      benchmark::RegisterBenchmark(((in_place ? "into/pages/page" : "into/buffer/page") + end).c_str(),
                                   [shared, content = content, in_place](benchmark::State& state) {
                                     inflate_pages(state, shared, content, in_place);
                                   });
  }
}

}  // namespace migrx::bench
