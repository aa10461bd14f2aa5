// A primary played byte for byte against the main channel with a secondary behind it: what it says, what it
// keeps, and what it gives the destination at failover.
#include "loader/colo/secondary.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "loader/main/main_channel.h"
#include "tests/loader/main/main_fixture.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx {
namespace {

using test::MainStreamBuilder;
using test::make_page;

constexpr uint64_t kPages = 2048;  // more than one slice of the cache's copying
constexpr uint64_t kGuestBytes = kPages * kPageBytes;
constexpr auto kReady = ColoMessage::checkpoint_ready;
constexpr auto kReply = ColoMessage::checkpoint_reply;
constexpr auto kReceived = ColoMessage::vmstate_received;
constexpr auto kLoaded = ColoMessage::vmstate_loaded;

class ColoTest : public ::testing::Test {
 protected:
  explicit ColoTest(uint64_t available = uint64_t{1} << 40)
      : available_(available),
        outgoing_(blocks_),
        compress_(0, 4, kernels()),
        secondary_(outgoing_, blocks_, kernels(), [this] { return available_; }) {
    outgoing_.block_bytes_max = kGuestBytes;
    settings_.x_colo = true;
    channel_ = std::make_unique<MainChannel>(settings_, secondary_, blocks_, barrier_, compress_, kernels(),
                                             nullptr, &secondary_);
    EXPECT_EQ("", secondary_.reserve());
  }
  static const PageKernels& kernels() { return test::MainRig::kernels(); }

  // All of it, in pieces of `step` bytes; parked channels get as many turns as they need, up to a bound.
  ParseStatus feed(Bytes bytes, std::size_t step = SIZE_MAX) {
    ParseStatus status = ParseStatus::need_more;
    for (std::size_t at = 0; at < bytes.size();) {
      Bytes piece = bytes.subspan(at, std::min(step, bytes.size() - at));
      at += piece.size();
      for (int turns = 0; turns < 1000; ++turns) {
        const ParseResult result = channel_->parse(piece);
        piece = piece.subspan(result.consumed);
        status = result.status;
        if (status != ParseStatus::parked || !channel_->ready()) break;
      }
      if (status == ParseStatus::failed || status == ParseStatus::parked) return status;
    }
    return status;
  }
  ParseStatus feed(MainStreamBuilder& b, std::size_t step = SIZE_MAX) {
    const std::vector<std::byte> bytes = b.take();
    return feed(bytes, step);
  }
  std::vector<ColoMessage> said() {
    std::vector<ColoMessage> out;
    for (ColoMessage m{}; secondary_.next_message(m);) out.push_back(m);
    return out;
  }
  MainStreamBuilder& initial() {
    b_.header().configuration().command(8).ram_start({{"ram", kGuestBytes, {}}}).ram_close().ram_part();
    for (uint64_t p = 0; p < kPages; p += 2) b_.page("ram", p * kPageBytes, make_page(p));
    b_.zero("ram", kPageBytes).ram_close().ram_part().ram_close();
    b_.ram_end().page("ram", 3 * kPageBytes, make_page(3)).ram_close().device_tail();
    return b_;
  }
  static MainStreamBuilder& message(MainStreamBuilder& b, ColoMessage m) {
    return b.be32(static_cast<uint32_t>(m));
  }
  // A checkpoint up to its device state, of which `state` is all.
  MainStreamBuilder& checkpoint(const std::function<void(MainStreamBuilder&)>& pages,
                                std::size_t state = 100) {
    message(b_, ColoMessage::checkpoint_request);
    message(b_, ColoMessage::vmstate_send).ram_end();
    pages(b_);
    b_.ram_close().u8(0);
    message(b_, ColoMessage::vmstate_size).be64(state);
    for (std::size_t i = 0; i + 1 < state; ++i) b_.u8(i == 0 ? 4 : i % 250 + 1);
    return b_.u8(0);
  }
  [[nodiscard]] std::vector<std::byte> ram(uint64_t page) const {
    const std::byte* const p = blocks_.find("ram")->host() + page * kPageBytes;
    return {p, p + kPageBytes};
  }
  static std::vector<std::byte> zeros() { return std::vector<std::byte>(kPageBytes); }

  uint64_t available_;
  MainSettings settings_;
  RamBlockList blocks_;
  test::RecordingEvents outgoing_;
  FlushBarrier barrier_{0};
  CompressJobs compress_;
  ColoSecondary secondary_;
  std::unique_ptr<MainChannel> channel_;
  MainStreamBuilder b_;
};

TEST_F(ColoTest, checkpoints_reach_ram_only_when_they_are_whole) {
  const std::vector<std::byte> device_state = [] {
    MainStreamBuilder b;
    return b.device_tail().take();
  }();
  ASSERT_EQ(ParseStatus::need_more, feed(initial(), 1448)) << channel_->error().message();
  EXPECT_EQ(secondary_.stage(), ColoSecondary::Stage::waiting);
  EXPECT_EQ(said(), std::vector{kReady});
  for (uint64_t p = 0; p < kPages; p += 2) ASSERT_EQ(ram(p), make_page(p)) << p;
  EXPECT_EQ(ram(3), make_page(3));

  // CONTINUE refers to the block of the migration before; the patch is against the page that came last.
  const std::vector<std::byte> second = [] {
    std::vector<std::byte> page = make_page(3);
    page[100] = std::byte{0xaa};
    return page;
  }();
  checkpoint([&](MainStreamBuilder& b) {
    b.page("ram", 4 * kPageBytes, make_page(1004)).zero("ram", 6 * kPageBytes);
    b.xbzrle("ram", 3 * kPageBytes, test::encode_xbzrle(make_page(3), second));
  });
  const std::vector<std::byte> bytes = b_.take();
  ASSERT_EQ(ParseStatus::need_more, feed(Bytes{bytes}.first(bytes.size() - 1), 97));
  EXPECT_EQ(said(), std::vector{kReply});
  EXPECT_EQ(ram(4), make_page(4)) << "a page of an unfinished checkpoint is in RAM";
  EXPECT_EQ(ram(6), make_page(6));
  EXPECT_EQ(ram(3), make_page(3));
  ASSERT_EQ(ParseStatus::need_more, feed(Bytes{bytes}.last(1)));
  EXPECT_EQ(said(), (std::vector{kReceived, kLoaded}));
  EXPECT_EQ(ram(4), make_page(1004));
  EXPECT_EQ(ram(6), zeros());
  EXPECT_EQ(ram(3), second);
  EXPECT_EQ(ram(8), make_page(8));
  EXPECT_EQ(secondary_.checkpoints.read(), 1U);
  EXPECT_EQ(secondary_.cache().pages_to_ram.read(), 3U) << "only marked pages are flushed";

  // Until failover the destination has seen neither RAM's END nor device state.
  EXPECT_TRUE(outgoing_.tail.empty());
  for (const std::string& line : outgoing_.log) EXPECT_EQ(std::string::npos, line.find("ram end")) << line;
}

TEST_F(ColoTest, failover_drops_what_came_behind_the_last_finished_checkpoint) {
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  ASSERT_EQ(ParseStatus::need_more,
            feed(checkpoint([](MainStreamBuilder& b) { b.page("ram", 0, make_page(77)); }, 40)));
  checkpoint([](MainStreamBuilder& b) { b.page("ram", 0, make_page(88)).zero("ram", 2 * kPageBytes); });
  const std::vector<std::byte> bytes = b_.take();
  ASSERT_EQ(ParseStatus::need_more, feed(Bytes{bytes}.first(bytes.size() - 1)));
  ASSERT_TRUE(secondary_.fail_over());
  (void)said();
  // The rest comes too late.
  EXPECT_EQ(ParseStatus::parked, feed(Bytes{bytes}.last(1)));
  EXPECT_FALSE(channel_->ready());
  EXPECT_TRUE(said().empty());
  outgoing_.step_max = 16;
  while (!secondary_.replay()) {
  }
  EXPECT_EQ(ram(0), make_page(77));
  EXPECT_EQ(ram(2), make_page(2));
  ASSERT_EQ(outgoing_.tail.size(), 40U + 7);
  EXPECT_EQ(outgoing_.tail[0], std::byte{4});
  EXPECT_EQ(outgoing_.tail[39], std::byte{0});
  EXPECT_EQ(outgoing_.tail[46], std::byte{'}'});
  EXPECT_EQ(outgoing_.log.back(), "ram complete");
}

TEST_F(ColoTest, failover_before_the_first_checkpoint_has_the_initial_migrations_state) {
  MainStreamBuilder plain;
  const std::vector<std::byte> device_state = plain.device_tail().take();
  EXPECT_FALSE(secondary_.fail_over());
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  ASSERT_TRUE(secondary_.fail_over());
  EXPECT_TRUE(secondary_.replay());
  EXPECT_EQ(outgoing_.tail, device_state);
}

// A checkpoint of which all has come is being loaded: failover waits until it is finished.
TEST_F(ColoTest, failover_while_loading_waits_for_the_checkpoint) {
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  checkpoint([](MainStreamBuilder& b) {
    for (uint64_t p = 0; p < kPages; ++p) b.page("ram", p * kPageBytes, make_page(5000 + p));
  });
  const std::vector<std::byte> bytes = b_.take();
  ASSERT_EQ(ParseStatus::parked, channel_->parse(bytes).status) << "one slice cannot be all";
  EXPECT_EQ(secondary_.stage(), ColoSecondary::Stage::loading);
  EXPECT_FALSE(secondary_.fail_over());
  int turns = 0;
  while (channel_->ready() && channel_->parse({}).status == ParseStatus::parked) ++turns;
  EXPECT_GE(turns, 2);
  EXPECT_TRUE(secondary_.fail_over());
  EXPECT_EQ(secondary_.checkpoints.read(), 1U);
  for (uint64_t p = 0; p < kPages; ++p) ASSERT_EQ(ram(p), make_page(5000 + p)) << p;
}

TEST_F(ColoTest, a_primary_that_does_not_wait_is_read_no_further) {
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  checkpoint([](MainStreamBuilder& b) { b.page("ram", 0, make_page(1)); });
  checkpoint([](MainStreamBuilder& b) { b.page("ram", 0, make_page(2)); });
  // Both are loaded in their order, and each answer is given.
  EXPECT_EQ(ParseStatus::need_more, feed(b_, 500));
  EXPECT_EQ(said(), (std::vector{kReady, kReply, kReceived, kLoaded, kReply, kReceived, kLoaded}));
  EXPECT_EQ(ram(0), make_page(2));
}

TEST_F(ColoTest, torn_at_every_byte_the_checkpoint_is_the_same) {
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  (void)said();
  for (uint64_t round = 0; round < 20; ++round) {
    checkpoint([&](MainStreamBuilder& b) { b.page("ram", 4096 * round, make_page(round + 9)); }, 10 + round);
    ASSERT_EQ(ParseStatus::need_more, feed(b_, round + 1)) << channel_->error().message();
    EXPECT_EQ(said(), (std::vector{kReply, kReceived, kLoaded}));
    EXPECT_EQ(ram(round), make_page(round + 9));
  }
}

struct Wrong {
  const char* name;
  const char* field;
  std::function<void(MainStreamBuilder&)> write;
};

TEST(ColoHostile, wrong_codes_sections_and_sizes_end_colo_and_leave_ram_alone) {
  using B = MainStreamBuilder;
  const auto sent = [](B& b) -> B& { return b.be32(1).be32(3); };
  const auto with_ram = [sent](B& b) -> B& {
    return sent(b).ram_end().page("ram", 0, make_page(99)).ram_close().u8(0);
  };
  const std::vector<Wrong> wrongs = {
      {"reply", "COLO: message", [](B& b) { b.be32(2); }},
      {"code 7", "COLO: message", [](B& b) { b.be32(7); }},
      {"code -1", "COLO: message", [](B& b) { b.be32(0xffffffff); }},
      {"request twice", "COLO: message", [](B& b) { b.be32(1).be32(1); }},
      {"size without ram", "COLO: checkpoint", [&](B& b) { sent(b).be32(4); }},
      {"EOF without ram", "COLO: checkpoint", [&](B& b) { sent(b).u8(0); }},
      {"START", "COLO: checkpoint", [&](B& b) { sent(b).section_start(2, "ram", 0, 4); }},
      {"PART", "COLO: checkpoint", [&](B& b) { sent(b).ram_part(); }},
      {"two ENDs", "COLO: checkpoint", [&](B& b) { sent(b).ram_end().ram_close().ram_end(); }},
      {"unknown section", "section: section_id", [&](B& b) { sent(b).section_end(77); }},
      {"FULL", "COLO: checkpoint", [&](B& b) { sent(b).section_full(5, "timer", 0, 2); }},
      {"PING", "command", [&](B& b) { sent(b).ping(1); }},
      {"ENABLE_COLO again", "command", [&](B& b) { sent(b).command(8); }},
      {"block list", "RAM section: flags",
       [&](B& b) { sent(b).ram_end().be64(kGuestBytes | B::kMemSize).str8("ram").be64(kGuestBytes); }},
      {"offset", "RAM section: offset",
       [&](B& b) { sent(b).ram_end().page("ram", kGuestBytes, make_page(1)); }},
      {"block", "RAM section: idstr", [&](B& b) { sent(b).ram_end().page("rom", 0, make_page(1)); }},
      {"loaded instead of size", "COLO: message", [&](B& b) { with_ram(b).be32(6); }},
      {"size 0", "COLO: VMSTATE_SIZE: length", [&](B& b) { with_ram(b).be32(4).be64(0); }},
      {"size too large", "COLO: VMSTATE_SIZE: length",
       [&](B& b) { with_ram(b).be32(4).be64(kColoStateBytesMax + 1); }},
      {"size 2^64-1", "COLO: VMSTATE_SIZE: length", [&](B& b) { with_ram(b).be32(4).be64(UINT64_MAX); }},
      {"state without EOF", "COLO: device state",
       [&](B& b) { with_ram(b).be32(4).be64(3).u8(4).u8(0).u8(9); }},
  };
  class Rig : public ColoTest {
   public:
    void TestBody() override {}
    void check(const Wrong& wrong) {
      ASSERT_EQ(ParseStatus::need_more, feed(initial(), 4000));
      const std::vector<std::byte> before = ram(0);
      wrong.write(b_);
      ASSERT_EQ(ParseStatus::failed, feed(b_, 777));
      EXPECT_EQ(std::string(channel_->error().field), wrong.field) << channel_->error().message();
      EXPECT_GT(channel_->error().offset, kGuestBytes / 2);
      EXPECT_EQ(before, ram(0));
      EXPECT_TRUE(secondary_.lose_source(channel_->error()));
      EXPECT_TRUE(secondary_.fail_over());
      EXPECT_TRUE(secondary_.replay());
      EXPECT_EQ(before, ram(0));
    }
  };
  for (const Wrong& wrong : wrongs) {
    SCOPED_TRACE(wrong.name);
    Rig rig;
    rig.check(wrong);
  }
}

TEST_F(ColoTest, the_end_of_the_stream_names_the_message_that_is_missing) {
  ASSERT_EQ(ParseStatus::need_more, feed(initial()));
  const StreamError error = channel_->end_of_stream();
  EXPECT_EQ(error.error_class, ErrorClass::truncated);
  EXPECT_NE(std::string(error.field).find("CHECKPOINT_REQUEST"), std::string::npos);
}

TEST_F(ColoTest, the_end_inside_the_initial_device_state_is_no_loss_to_decide_about) {
  initial();
  const std::vector<std::byte> bytes = b_.take();
  ASSERT_EQ(ParseStatus::need_more, feed(Bytes{bytes}.first(bytes.size() - 1)));
  const StreamError error = channel_->end_of_stream();
  EXPECT_EQ(error.error_class, ErrorClass::truncated);
  EXPECT_FALSE(secondary_.lose_source(error));
  EXPECT_FALSE(secondary_.fail_over());
}

TEST_F(ColoTest, a_return_path_is_refused_by_its_name) {
  b_.header().configuration().open_return_path().ping(1).command(8);
  ASSERT_EQ(ParseStatus::failed, feed(b_));
  EXPECT_NE(channel_->error().message().find("return-path"), std::string::npos);
}

TEST_F(ColoTest, enable_colo_behind_the_block_list_is_too_late) {
  b_.header().configuration().ram_start({{"ram", kGuestBytes, {}}}).ram_close().command(8);
  ASSERT_EQ(ParseStatus::failed, feed(b_));
  // The block list without it has ended the stream already.
  EXPECT_EQ(channel_->error().error_class, ErrorClass::unsupported);
  EXPECT_NE(channel_->error().message().find("no ENABLE_COLO came"), std::string::npos);
}

TEST_F(ColoTest, other_iterables_are_refused) {
  b_.header().configuration().command(8).section_start(1, "dirty-bitmap", 0, 1);
  ASSERT_EQ(ParseStatus::failed, feed(b_));
  EXPECT_NE(channel_->error().message().find("dirty-bitmap"), std::string::npos);
}

// QEMU 11.1 sends no ENABLE_COLO and stops its guest for checkpoints all the same.
TEST_F(ColoTest, a_source_that_announces_no_colo_is_refused_before_its_first_page) {
  b_.header()
      .configuration("pc-i440fx-11.1")
      .open_return_path()
      .ping(1)
      .ram_start({{"ram", kGuestBytes, {}}});
  ASSERT_EQ(ParseStatus::failed, feed(b_));
  EXPECT_EQ(channel_->error().error_class, ErrorClass::unsupported);
  EXPECT_NE(channel_->error().message().find("11.1"), std::string::npos);
  EXPECT_NE(channel_->error().message().find("turn x-colo off"), std::string::npos);
  EXPECT_TRUE(outgoing_.tail.empty());
  EXPECT_TRUE(said().empty());
}

// Promised is what is there: the source learns before its first page.
TEST_F(ColoTest, a_host_without_the_memory_refuses_with_what_to_do) {
  available_ = kGuestBytes / 2;
  EXPECT_NE(secondary_.reserve().find("migrate_set_capability x-colo off"), std::string::npos);
  b_.header().configuration().command(8).ram_start({{"ram", kGuestBytes, {}}});
  ASSERT_EQ(ParseStatus::failed, feed(b_));
  EXPECT_NE(channel_->error().message().find("MiB available"), std::string::npos);
}

}  // namespace
}  // namespace migrx
