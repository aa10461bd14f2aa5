// TLS on a loader worker: records opened into a buffer by each kernel, and a multifd channel from its ring to
// guest memory, encrypted and plain. Records are those of a QEMU source: one for a packet's header, one for
// each of its pages. Bytes per second are of page data, and of the thread's CPU time.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/micro.h"
#include "dataplane/handoff/handoff.h"
#include "loader/multifd/multifd_channel.h"
#include "loader/session/channel.h"
#include "loader/tls/kernels/aead_kernels.h"
#include "loader/tls/tls_channel.h"
#include "tests/loader/multifd_stream_builder.h"

#ifdef MIGRX_BENCH_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

namespace migrx::bench {
namespace {

constexpr std::size_t kTlsPages = 2048;  // 8 MiB of ciphertext: it stays in the last cache
constexpr uint8_t kApplicationData = 23;

TlsKeys keys_of(TlsSuite suite) {
  TlsKeys keys;
  keys.suite = suite;
  for (std::size_t i = 0; i < keys.key.size(); ++i) keys.key[i] = static_cast<uint8_t>(i * 7 + 1);
  for (std::size_t i = 0; i < keys.iv.size(); ++i) keys.iv[i] = static_cast<uint8_t>(i * 11 + 1);
  return keys;
}

std::vector<std::byte> seal(RecordCipher& cipher, Bytes text) {
  std::vector<std::byte> record(kTlsHeaderBytes + 8 + text.size() + 1 + kTlsTagBytes);
  record.resize(cipher.seal(kApplicationData, text, record.data()));
  return record;
}

// Bytes in packet buffers: pieces that lie 2 KiB apart, or as far as a piece needs.
struct Packets {
  Packets(Bytes stream, std::size_t piece)
      : stride((piece + 66 + 2047) / 2048 * 2048),
        pool((((stream.size() + piece - 1) / piece * stride) + (2 << 20) - 1) / (2 << 20) * (2 << 20)) {
    for (std::size_t at = 0, i = 0; at < stream.size(); at += piece, ++i) {
      const std::size_t n = std::min(piece, stream.size() - at);
      std::byte* const data = pool.data() + i * stride + 66;
      std::memcpy(data, stream.data() + at, n);
      slices.push_back({data, data, static_cast<uint32_t>(n), StreamEnd::none});
    }
  }
  std::size_t stride;
  Region pool;
  std::vector<Slice> slices;
};

// What one multifd channel sends.
class Source {
 public:
  // guest_bytes: of which each page takes a part of its own, so that it lies alone.
  explicit Source(std::size_t guest_bytes)
      : stride_(guest_bytes / kTlsPages), pages_(kTlsPages * kPageBytes) {
    std::mt19937_64 random(3);
    for (std::size_t i = 0; i < pages_.size(); i += 8) {
      const uint64_t v = random();
      std::memcpy(pages_.data() + i, &v, 8);
    }
    builder_.init(0);
    add_record(64);
    builder_.sync(0);
    add_record(kMultifdHeaderBytes);
    for (std::size_t page = 0; page < kTlsPages; page += kMultifdPagesMax) {
      std::vector<uint64_t> offsets;
      for (std::size_t i = 0; i < kMultifdPagesMax; ++i) offsets.push_back((page + i) * stride_);
      builder_.pages(page, "mem", offsets,
                     [this](uint64_t offset) { return pages_.data() + offset / stride_ * kPageBytes; });
      add_record(kMultifdHeaderBytes);
      for (std::size_t i = 0; i < kMultifdPagesMax; ++i) add_record(kPageBytes);
    }
  }
  [[nodiscard]] Bytes plain() const noexcept { return builder_.bytes; }
  [[nodiscard]] std::vector<std::byte> sealed(const TlsKeys& keys) const {
    RecordCipher cipher(select_gcm_kernels());
    require(cipher.set_keys(keys), "the keys");
    std::vector<std::byte> out;
    std::size_t at = 0;
    for (const std::size_t bytes : records_) {
      const std::vector<std::byte> record = seal(cipher, plain().subspan(at, bytes));
      out.insert(out.end(), record.begin(), record.end());
      at += bytes;
    }
    return out;
  }
  void check(const Region& guest) const {
    for (std::size_t i = 0; i < kTlsPages; ++i)
      require(std::memcmp(guest.data() + i * stride_, pages_.data() + i * kPageBytes, kPageBytes) == 0,
              "a page");
  }

 private:
  void add_record(std::size_t bytes) { records_.push_back(bytes); }

  const std::size_t stride_;
  Region pages_;
  test::MultifdStreamBuilder builder_;
  std::vector<std::size_t> records_;
};

// The same parser, without its word on where page data goes: all of it takes the way of the staging buffer.
class Staged final : public ChannelParser {
 public:
  explicit Staged(ChannelParser& inner) : inner_(inner) {}
  ParseResult parse(Bytes piece) noexcept override { return inner_.parse(piece); }
  bool ready() noexcept override { return inner_.ready(); }
  StreamError end_of_stream() noexcept override { return inner_.end_of_stream(); }
  const StreamError& error() const noexcept override { return inner_.error(); }
  uint64_t offset() const noexcept override { return inner_.offset(); }

 private:
  ChannelParser& inner_;
};

class To final : public ChannelDirectory {
 public:
  explicit To(ChannelParser& parser) : parser_(parser) {}
  Introduction identify(Bytes greeting, Handoff&, uint32_t) noexcept override {
    return greeting.size() < kMagicBytes ? Introduction::needs(kMagicBytes) : Introduction::as(parser_);
  }
  void channel_failed(const StreamError& error) noexcept override {
    std::fprintf(stderr, "%s\n", error.message().c_str());
    std::abort();
  }
  [[nodiscard]] bool over() const noexcept override { return false; }

 private:
  ChannelParser& parser_;
};

enum class TlsWay : uint8_t { plain, staged, direct };

// From a channel's ring to guest memory, as its worker takes it: 64 slices in a turn.
void tls_worker(benchmark::State& state, const GcmKernels* kernels, TlsSuite suite, TlsWay way,
                std::size_t guest_bytes) {
  const Source source(guest_bytes);
  const TlsKeys keys = keys_of(suite);
  const Packets packets(way == TlsWay::plain ? Bytes(source.plain()) : Bytes(source.sealed(keys)),
                        static_cast<std::size_t>(state.range(0)));
  const Region guest(guest_bytes);
  RamBlockList blocks;
  RamBlock& block =
      blocks.add(std::make_unique<RamBlock>("mem", guest.data(), guest.size(), true, true, kAnyNode));
  const auto run = [&] {
    FlushBarrier barrier(1);
    barrier.release(Epoch{0});
    MultifdSession session;
    session.barrier = &barrier;
    session.blocks = &blocks;
    session.kernels = supported_page_kernels().back();
    MultifdChannel multifd(session);
    Staged staged(multifd);
    To inner(way == TlsWay::staged ? static_cast<ChannelParser&>(staged) : multifd);
    Handoff ring(256);
    TlsChannel tls(ring, inner, 0, kernels);
    tls.establish(keys, {});
    To outer(way == TlsWay::plain ? static_cast<ChannelParser&>(multifd) : tls);
    Channel channel(ring, outer, 0);
    std::array<void*, 64> buffers;
    for (std::size_t pushed = 0; pushed < packets.slices.size() || ring.unread();) {
      for (int i = 0; i < 64 && pushed < packets.slices.size() && ring.writable() > 0; ++i)
        ring.push(packets.slices[pushed++]);
      ring.publish();
      channel.do_work(64);
      uint32_t count = 0;
      ring.reclaim(buffers, count);
    }
  };
  run();
  source.check(guest);
  for (auto _ : state) run();
  benchmark::DoNotOptimize(block.pages_written());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kTlsPages * kPageBytes));
}

// Records of a page, one after the other, into a buffer that stays in the first caches.
void tls_open(benchmark::State& state, const GcmKernels* kernels, TlsSuite suite) {
  const TlsKeys keys = keys_of(suite);
  RecordCipher sealer(kernels);
  require(sealer.set_keys(keys), "the keys");
  std::vector<std::byte> stream;
  const std::vector<std::byte> page(kPageBytes, std::byte{7});
  for (std::size_t i = 0; i < kTlsPages; ++i) {
    const std::vector<std::byte> record = seal(sealer, page);
    stream.insert(stream.end(), record.begin(), record.end());
  }
  const Packets packets(stream, static_cast<std::size_t>(state.range(0)));
  const Region out(2 << 20);
  constexpr std::size_t kText = kPageBytes + 1;
  bool right = true;
  const auto run = [&] {
    RecordCipher cipher(kernels);
    right = cipher.set_keys(keys) && right;
    std::array<std::byte, kTlsHeaderBytes> header{};
    std::array<std::byte, kTlsTagBytes> tag{};
    std::size_t in_record = 0;
    for (const Slice& slice : packets.slices) {
      prefetch_slice(*(&slice + 1 == packets.slices.data() + packets.slices.size() ? &slice : &slice + 1));
      for (std::size_t at = 0; at < slice.length;) {
        const std::size_t left = slice.length - at;
        std::size_t n = 0;
        if (in_record < kTlsHeaderBytes) {
          n = std::min(left, kTlsHeaderBytes - in_record);
          std::memcpy(header.data() + in_record, slice.data + at, n);
          if (in_record + n == kTlsHeaderBytes) cipher.begin(header.data(), nullptr, kText);
        } else if (in_record < kTlsHeaderBytes + kText) {
          n = std::min(left, kTlsHeaderBytes + kText - in_record);
          cipher.decrypt(out.data() + (in_record - kTlsHeaderBytes), slice.data + at, n);
        } else {
          n = std::min(left, kTlsHeaderBytes + kText + kTlsTagBytes - in_record);
          std::memcpy(tag.data() + (in_record - kTlsHeaderBytes - kText), slice.data + at, n);
          if (in_record + n == kTlsHeaderBytes + kText + kTlsTagBytes) {
            right = cipher.finish(tag.data()) && right;
            in_record = 0;
            at += n;
            continue;
          }
        }
        in_record += n;
        at += n;
      }
    }
  };
  run();
  require(right && std::memcmp(out.data(), page.data(), page.size()) == 0, "a record");
  for (auto _ : state) run();
  require(right, "a tag");
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kTlsPages * kPageBytes));
}

#ifdef MIGRX_BENCH_IPSEC_MB
// The same with Intel's library, whose AES-GCM takes pieces, too.
void tls_open_ipsec_mb(benchmark::State& state, TlsSuite suite) {
  const TlsKeys keys = keys_of(suite);
  IMB_MGR* const manager = alloc_mb_mgr(0);
  IMB_ARCH arch{};
  init_mb_mgr_auto(manager, &arch);
  gcm_key_data key{};
  suite == TlsSuite::aes_128_gcm ? IMB_AES128_GCM_PRE(manager, keys.key.data(), &key)
                                 : IMB_AES256_GCM_PRE(manager, keys.key.data(), &key);
  RecordCipher sealer(select_gcm_kernels());
  require(sealer.set_keys(keys), "the keys");
  std::vector<std::byte> stream;
  const std::vector<std::byte> page(kPageBytes, std::byte{7});
  for (std::size_t i = 0; i < kTlsPages; ++i) {
    const std::vector<std::byte> record = seal(sealer, page);
    stream.insert(stream.end(), record.begin(), record.end());
  }
  const Packets packets(stream, static_cast<std::size_t>(state.range(0)));
  const Region out(2 << 20);
  constexpr std::size_t kText = kPageBytes + 1;
  bool right = true;
  const auto octets = [](const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); };
  const auto run = [&] {
    gcm_context_data context;
    std::array<std::byte, kTlsHeaderBytes> header{};
    std::array<std::byte, kTlsTagBytes> tag{};
    std::size_t in_record = 0;
    uint64_t sequence = 0;
    for (const Slice& slice : packets.slices) {
      prefetch_slice(*(&slice + 1 == packets.slices.data() + packets.slices.size() ? &slice : &slice + 1));
      for (std::size_t at = 0; at < slice.length;) {
        const std::size_t left = slice.length - at;
        std::size_t n = 0;
        if (in_record < kTlsHeaderBytes) {
          n = std::min(left, kTlsHeaderBytes - in_record);
          std::memcpy(header.data() + in_record, slice.data + at, n);
          if (in_record + n == kTlsHeaderBytes) {
            std::array<uint8_t, 12> nonce = keys.iv;
            for (unsigned i = 0; i < 8; ++i) nonce[4 + i] ^= static_cast<uint8_t>(sequence >> (56 - 8 * i));
            suite == TlsSuite::aes_128_gcm ? IMB_AES128_GCM_INIT(manager, &key, &context, nonce.data(),
                                                                 octets(header.data()), kTlsHeaderBytes)
                                           : IMB_AES256_GCM_INIT(manager, &key, &context, nonce.data(),
                                                                 octets(header.data()), kTlsHeaderBytes);
          }
        } else if (in_record < kTlsHeaderBytes + kText) {
          n = std::min(left, kTlsHeaderBytes + kText - in_record);
          auto* const to = reinterpret_cast<uint8_t*>(out.data()) + (in_record - kTlsHeaderBytes);
          suite == TlsSuite::aes_128_gcm
              ? IMB_AES128_GCM_DEC_UPDATE(manager, &key, &context, to, octets(slice.data + at), n)
              : IMB_AES256_GCM_DEC_UPDATE(manager, &key, &context, to, octets(slice.data + at), n);
        } else {
          n = std::min(left, kTlsHeaderBytes + kText + kTlsTagBytes - in_record);
          std::memcpy(tag.data() + (in_record - kTlsHeaderBytes - kText), slice.data + at, n);
          if (in_record + n == kTlsHeaderBytes + kText + kTlsTagBytes) {
            std::array<uint8_t, kTlsTagBytes> own{};
            suite == TlsSuite::aes_128_gcm
                ? IMB_AES128_GCM_DEC_FINALIZE(manager, &key, &context, own.data(), own.size())
                : IMB_AES256_GCM_DEC_FINALIZE(manager, &key, &context, own.data(), own.size());
            right = std::memcmp(own.data(), tag.data(), own.size()) == 0 && right;
            ++sequence;
            in_record = 0;
            at += n;
            continue;
          }
        }
        in_record += n;
        at += n;
      }
    }
  };
  run();
  require(right && std::memcmp(out.data(), page.data(), page.size()) == 0, "a record");
  for (auto _ : state) run();
  require(right, "a tag");
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kTlsPages * kPageBytes));
  free_mb_mgr(manager);
}
#endif

}  // namespace

void register_tls_benchmarks(std::size_t guest_bytes) {
  const std::vector<int64_t> pieces{1448, 8948, 65536};
  constexpr std::pair<const char*, TlsSuite> kSuites[] = {{"aes256", TlsSuite::aes_256_gcm},
                                                          {"aes128", TlsSuite::aes_128_gcm}};
  std::vector<std::pair<std::string, const GcmKernels*>> kernels{{"openssl", nullptr}};
  for (const char* const name : {"aesni", "vaes256", "vaes512"})
    if (const GcmKernels* const found = find_gcm_kernels(name)) kernels.emplace_back(name, found);
  benchmark::RegisterBenchmark("tls_worker/plain", tls_worker, nullptr, TlsSuite::aes_256_gcm, TlsWay::plain,
                               guest_bytes)
      ->ArgsProduct({pieces});
  for (const auto& [suite_name, suite] : kSuites) {
    for (const auto& [name, table] : kernels) {
      const std::string end = "/" + name + "/" + suite_name;
      benchmark::RegisterBenchmark(("tls_open" + end).c_str(), tls_open, table, suite)->ArgsProduct({pieces});
      benchmark::RegisterBenchmark(("tls_worker/staged" + end).c_str(), tls_worker, table, suite,
                                   TlsWay::staged, guest_bytes)
          ->ArgsProduct({pieces});
      benchmark::RegisterBenchmark(("tls_worker/direct" + end).c_str(), tls_worker, table, suite,
                                   TlsWay::direct, guest_bytes)
          ->ArgsProduct({pieces});
    }
#ifdef MIGRX_BENCH_IPSEC_MB
    benchmark::RegisterBenchmark(("tls_open/ipsec_mb/" + std::string(suite_name)).c_str(), tls_open_ipsec_mb,
                                 suite)
        ->ArgsProduct({pieces});
#endif
  }
}

}  // namespace migrx::bench
