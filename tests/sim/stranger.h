// Somebody else who connects to the receiver's port.
#pragma once

#include <vector>

#include "tests/loader/main_stream_builder.h"
#include "tests/loader/multifd_stream_builder.h"
#include "tests/sim/source.h"
#include "tests/sim/tcp_sender.h"

namespace migrx::sim {

class Stranger {
 public:
  enum class Manner : uint8_t { silent, web, noise, torn_magic, leaves_at_once, second_main, multifd, tls };

  // `source`: whom it imitates.
  Stranger(const TcpSenderOptions& options, Manner manner, uint64_t at_ns, Random random,
           const Source& source)
      : sender_(options, random), manner_(manner), at_ns_(at_ns), random_(random.fork()), source_(source) {}

  void step(uint64_t now_ns, bool may_speak) {
    if (sender_.state() == TcpSender::State::closed && now_ns >= at_ns_) sender_.connect(now_ns);
    if (sender_.state() != TcpSender::State::established || (!said_ && !may_speak)) return;
    if (!said_) words_ = words();
    said_ = true;
    words_at_ += sender_.write(Bytes{words_}.subspan(words_at_));
    if (manner_ == Manner::leaves_at_once || manner_ == Manner::torn_magic) sender_.close();
  }
  [[nodiscard]] uint64_t next_ns() const {
    return sender_.state() == TcpSender::State::closed ? at_ns_ : UINT64_MAX;
  }
  // For one that has no time yet.
  void come_at(uint64_t at_ns) {
    if (at_ns_ == UINT64_MAX) at_ns_ = at_ns;
  }
  [[nodiscard]] TcpSender& sender() { return sender_; }
  [[nodiscard]] const TcpSender& sender() const { return sender_; }
  [[nodiscard]] bool said() const { return said_; }

 private:
  std::vector<std::byte> words() {
    std::vector<std::byte> out;
    const auto text = [&out](const char* s) {
      for (; *s != '\0'; ++s) out.push_back(static_cast<std::byte>(*s));
    };
    switch (manner_) {
      case Manner::silent:
      case Manner::leaves_at_once:
        break;
      case Manner::web:
        text("GET / HTTP/1.1\r\nHost: example\r\n\r\n");
        break;
      case Manner::torn_magic:
        text("QE");
        break;
      case Manner::second_main:
        out = another_guest();
        break;
      case Manner::tls:
        // The beginning of a ClientHello.
        for (const int b : {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03})
          out.push_back(static_cast<std::byte>(b));
        break;
      case Manner::multifd: {
        // An init packet as any, then SYNCs, pages and noise.
        test::MultifdStreamBuilder channel(test::MultifdMethod::none);
        channel.init(static_cast<uint8_t>(random_.below(9)));
        for (uint64_t n = random_.below(6); n > 0; --n) channel.sync(n);
        const std::vector<std::byte> page(4096, std::byte{0x66});
        if (random_.chance(0.7))
          channel.pages(1, "mem", {4096 * random_.below(40)}, [&page](uint64_t) { return page.data(); });
        out = std::move(channel.bytes);
        if (random_.chance(0.3)) out.resize(random_.between(4, out.size()));
        for (uint64_t n = random_.below(3000); n > 0; --n)
          out.push_back(static_cast<std::byte>(random_.next()));
        break;
      }
      case Manner::noise:
        // Never the first byte of a main channel, a multifd channel or TLS.
        out.push_back(std::byte{0xff});
        for (uint64_t n = random_.below(3000); n > 0; --n)
          out.push_back(static_cast<std::byte>(random_.next()));
        break;
    }
    return out;
  }

  // A whole migration over main alone, of a guest with the same blocks: taken for the source's it would end
  // well.
  std::vector<std::byte> another_guest() {
    test::MainStreamBuilder main;
    main.header().configuration();
    if (random_.chance(0.5)) main.open_return_path().ping(1);
    std::vector<test::MainStreamBuilder::Block> list;
    for (const SourceBlock& block : source_.blocks()) list.push_back({block.idstr, block.image.size(), {}});
    main.ram_start(list).ram_close().ram_end();
    const std::vector<std::byte> page(4096, std::byte{0x66});
    for (const SourceBlock& block : source_.blocks())
      for (uint64_t i = 0; i < block.pages(); ++i) {
        if (random_.chance(0.1))
          main.page(block.idstr, i * 4096, page);
        else
          main.zero(block.idstr, i * 4096);
      }
    main.ram_close().device_tail(random_.below(2000));
    return main.take();
  }

  TcpSender sender_;
  Manner manner_;
  uint64_t at_ns_;
  Random random_;
  const Source& source_;
  std::vector<std::byte> words_;
  std::size_t words_at_ = 0;
  bool said_ = false;
};

}  // namespace migrx::sim
