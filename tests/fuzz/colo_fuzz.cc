// The checkpoints of a COLO primary behind a valid migration. Input: a byte of piece size, a byte that says
// behind which piece failover comes, what the primary sends.
#include <algorithm>
#include <cstring>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/main_target.h"
#include "tests/loader/main_stream_builder.h"

namespace {

using namespace migrx;
using test::require;

constexpr uint64_t kPages = 4;

// What must hold whatever the primary says: our messages come in their order, and RAM is that of the last
// finished checkpoint.
class Witness {
 public:
  explicit Witness(test::FuzzChannel& channel) : channel_(channel) {}

  void look() {
    for (ColoMessage message{}; colo().next_message(message);) hear(message);
    if (++looks_ % 64 == 0) compare();
  }
  void compare() const {
    if (colo().stage() == ColoSecondary::Stage::loading || kept_.empty()) return;
    require(kept_ == ram());
  }

 private:
  void hear(ColoMessage message) {
    switch (message) {
      case ColoMessage::checkpoint_ready:
        require(said_ == 0);
        break;
      case ColoMessage::checkpoint_reply:
        require(said_ > 0 &&
                (last_ == ColoMessage::checkpoint_ready || last_ == ColoMessage::vmstate_loaded));
        break;
      case ColoMessage::vmstate_received:
        require(last_ == ColoMessage::checkpoint_reply);
        break;
      case ColoMessage::vmstate_loaded:
        require(last_ == ColoMessage::vmstate_received);
        break;
      case ColoMessage::checkpoint_request:
      case ColoMessage::vmstate_send:
      case ColoMessage::vmstate_size:
        require(false);  // the primary's
    }
    if (message == ColoMessage::checkpoint_ready || message == ColoMessage::vmstate_loaded) kept_ = ram();
    last_ = message;
    ++said_;
  }
  [[nodiscard]] std::vector<std::byte> ram() const {
    const RamBlock* const block = channel_.blocks().find("ram");
    return {block->host(), block->host() + block->used_length()};
  }
  [[nodiscard]] ColoSecondary& colo() const { return *channel_.colo(); }

  test::FuzzChannel& channel_;
  std::vector<std::byte> kept_;
  ColoMessage last_{};
  uint64_t said_ = 0;
  uint64_t looks_ = 0;
};

}  // namespace

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  const auto checkpoint = [](MainStreamBuilder& b, uint64_t seed) {
    b.be32(1).be32(3).ram_end().page("ram", 0, make_page(seed)).zero("ram", kPageBytes);
    auto patched = make_page(1);
    patched[7] ^= std::byte{1};
    b.xbzrle("ram", 3 * kPageBytes, encode_xbzrle(make_page(1), patched)).ram_close().u8(0);
    b.be32(4).be64(5).u8(4).u8(1).u8(2).u8(3).u8(0);
  };
  MainStreamBuilder two;
  two.u8(20).u8(255);
  checkpoint(two, 1);
  checkpoint(two, 2);
  MainStreamBuilder failover;
  failover.u8(3).u8(150);
  checkpoint(failover, 3);
  failover.be32(1).be32(3).ram_end().page("ram", 2 * kPageBytes, make_page(9));
  return {two.take(), failover.take()};
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  MainSettings settings;
  settings.x_colo = true;
  settings.xbzrle = true;
  test::FuzzChannel channel(settings);
  Witness witness(channel);
  channel.on_turn = [&] { witness.look(); };
  test::MainStreamBuilder b;
  b.header().configuration().command(8).ram_start({{"ram", kPages * kPageBytes, {}}}).ram_close().ram_part();
  b.page("ram", 3 * kPageBytes, test::make_page(1)).ram_close().ram_end().ram_close().device_tail();
  require(channel.feed(b.bytes(), SIZE_MAX));
  ColoSecondary& colo = *channel.colo();
  require(colo.stage() == ColoSecondary::Stage::waiting);

  const std::size_t step = 1 + std::size_t{data[0]} * 16;
  const std::size_t failover_at = data[1];
  Bytes stream{reinterpret_cast<const std::byte*>(data) + 2, size - 2};
  for (std::size_t piece = 0; !stream.empty(); ++piece) {
    if (piece >= failover_at && colo.fail_over()) break;
    const Bytes some = stream.first(std::min(step, stream.size()));
    stream = stream.subspan(some.size());
    if (!channel.feed(some, SIZE_MAX)) break;
  }
  witness.compare();
  if (colo.stage() == ColoSecondary::Stage::failed_over || colo.fail_over()) {
    // What comes then is too late, and the destination gets all it is owed.
    if (!stream.empty()) channel.feed_late(stream);
    require(colo.stage() == ColoSecondary::Stage::failed_over);
    for (int turns = 0; !colo.replay(); ++turns) require(turns < 1000);
    witness.compare();
  }
  channel.end();
  return 0;
}
