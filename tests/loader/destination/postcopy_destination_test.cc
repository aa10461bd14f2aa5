// A destination for a source that may switch to postcopy, and does.
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "tests/loader/destination/destination_fixture.h"

namespace migrx {
namespace {

using test::DestinationQemuTest;
using test::kRam;
using test::kVga;
using test::MainStreamBuilder;
using test::make_page;
using test::source_stream;

// What the host has to do for a source that may switch: it goes on as long as the test lets it.
class PlayedRefill final : public MemoryRefill {
 public:
  void begin(bool emptied) override { begun.push_back(emptied); }
  [[nodiscard]] std::optional<std::string> outcome() override { return result; }
  [[nodiscard]] uint64_t bytes_done() const noexcept override { return done; }
  std::vector<bool> begun;
  std::optional<std::string> result;
  uint64_t done = 0;
};

class PostcopyDestinationTest : public DestinationQemuTest {
 protected:
  void SetUp() override {
    DestinationQemuTest::SetUp();
    DestinationSettings settings;
    settings.refill = &refill_;
    settings.on_postcopy = [this] { told_at_ = got_.size(); };
    prepare(std::move(settings));
    listen();
  }
  void prepare(DestinationSettings settings) {
    make_destination(std::move(settings));
    main_settings_.postcopy = Postcopy::relayed;
    channel_ = std::make_unique<MainChannel>(main_settings_, destination_->events(), blocks_, barrier_,
                                             *compress_, *kernels_);
  }
  static std::vector<std::byte> begin() {
    MainStreamBuilder b;
    b.header().configuration().open_return_path().ping(7).advise();
    b.ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
    b.ram_part().page("mem", 0, make_page(1)).ram_close();
    return b.take();
  }
  static std::vector<std::byte> behind_the_switch() {
    MainStreamBuilder b;
    b.discard("mem", {{kPageBytes, kPageBytes}}).ping(2).package(60).ping(4);
    return b.take();
  }
  // The destination takes postcopy, and the host has the memory: up to the switch.
  void advise() {
    feed_some(begin());
    const auto pong = make_pong(StreamRewriter::kAdvisePing);
    refill_.result = "";
    answer({pong.begin(), pong.end()});
    const std::vector<std::byte> rest = rest_;
    feed(rest);
  }
  [[nodiscard]] std::vector<std::byte> tail_of_got(std::size_t bytes) const {
    return {got_.end() - static_cast<std::ptrdiff_t>(bytes), got_.end()};
  }

  MainSettings main_settings_;
  PlayedRefill refill_;
  std::optional<std::size_t> told_at_;  // bytes that the destination had when the switch was told
};

TEST_F(PostcopyDestinationTest,
       no_page_is_loaded_before_the_destination_has_emptied_its_memory_and_the_host_has_it_anew) {
  feed_some(begin());
  EXPECT_TRUE(refill_.begun.empty());
  const auto pong = make_pong(StreamRewriter::kAdvisePing);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(refill_.begun, std::vector<bool>{true});
  std::vector<std::byte> rest = rest_;
  feed_some(rest);
  EXPECT_FALSE(rest_.empty());
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  // For as long as it grows the source is not waiting for nothing.
  const uint64_t before = destination_->last_sent_ns();
  refill_.done = 1;
  work();
  EXPECT_GT(destination_->last_sent_ns(), before);
  refill_.result = "";
  rest = rest_;
  feed(rest);
  EXPECT_EQ(blocks_[0].pages_written(), 1U);
  EXPECT_EQ(refill_.begun.size(), 1U);
}

TEST_F(PostcopyDestinationTest,
       a_host_whose_memory_has_gone_meanwhile_refuses_while_the_guest_is_at_the_source) {
  feed_some(begin());
  refill_.result = "no hugepages";
  const auto pong = make_pong(StreamRewriter::kAdvisePing);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("no hugepages"), std::string::npos);
}

TEST_F(PostcopyDestinationTest, a_destination_that_ends_at_advise_is_said_to_lack_the_capability) {
  feed_some(begin());
  ::close(peer_);
  peer_ = -1;
  ::close(listener_);
  listener_ = -1;
  work();
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("capability postcopy-ram"), std::string::npos)
      << destination_->error().message();
}

TEST_F(PostcopyDestinationTest, from_the_switch_on_both_speak_to_each_other) {
  advise();
  const std::vector<std::byte> stream = behind_the_switch();
  EXPECT_FALSE(told_at_);
  feed(stream);
  ASSERT_TRUE(told_at_);
  EXPECT_EQ(tail_of_got(stream.size()), stream);
  EXPECT_LE(*told_at_ + stream.size(), got_.size()) << "nothing of the switch had left when it was told";
  EXPECT_EQ(destination_->postcopy().discarded_pages, 1U);
  const auto pong = make_pong(2);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(std::vector<std::byte>(destination_->said().begin(), destination_->said().end()),
            (std::vector<std::byte>{pong.begin(), pong.end()}));
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  destination_->took_said(pong.size());
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted);
  EXPECT_EQ(destination_->said().size(), 8U);
}

TEST_F(PostcopyDestinationTest, shut_1_is_the_sources_to_hear_and_no_verdict) {
  advise();
  feed(behind_the_switch());
  answer(shut(1));
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  EXPECT_EQ(destination_->said().size(), 8U);
}

TEST_F(PostcopyDestinationTest, a_broken_connection_is_made_anew_when_the_source_has_said_something) {
  advise();
  feed(behind_the_switch());
  // The listener is still there, so the destination is taken to wait for a preempt channel, too.
  const int preempt = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
  ASSERT_GE(preempt, 0);
  for (const int fd : {std::exchange(peer_, -1), preempt}) ::close(fd);
  for (int i = 0; i < 3; ++i) destination_->do_work(now_ns_ += 1'000'000);
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  destination_->pause();
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  for (int i = 0; i < 10; ++i) work();
  EXPECT_LT(peer_, 0) << "nobody has resumed";
  destination_->resume();
  for (int i = 0; i < 10; ++i) work();
  EXPECT_LT(peer_, 0) << "the source has said nothing";
  got_.clear();
  MainStreamBuilder b;
  b.u8(8).be16(10).be16(4).str8("mem");
  const std::vector<std::byte> again = b.take();
  EXPECT_EQ(destination_->events().on_tail(again), again.size());
  for (int i = 0; i < 10; ++i) work();
  EXPECT_GE(peer_, 0);
  EXPECT_EQ(got_, again);
  EXPECT_EQ(destination_->postcopy().pauses, 1U);
}

TEST_F(PostcopyDestinationTest,
       memory_that_was_not_taken_before_is_taken_before_the_first_page_whatever_the_source_is) {
  DestinationSettings settings;
  settings.refill = &refill_;
  settings.memory_postponed = true;
  prepare(std::move(settings));
  feed_some(source_stream());
  EXPECT_EQ(refill_.begun, std::vector<bool>{false});
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  refill_.result = "";
  const std::vector<std::byte> rest = rest_;
  feed(rest);
  EXPECT_EQ(blocks_[0].pages_written(), 2U);
}

}  // namespace
}  // namespace migrx
