#include "loader/session/channel.h"

#include <gtest/gtest.h>

#include <functional>

#include <string>
#include <vector>

#include "loader/session/loader_worker.h"

namespace migrx {
namespace {

// Takes bytes one record of eight at a time; parks in front of a record that begins with 'P' until allowed
// on.
class FakeParser final : public ChannelParser {
 public:
  ParseResult parse(Bytes piece) noexcept override {
    ++calls;
    if (parked_) {
      if (!allowed) return {0, ParseStatus::parked};
      parked_ = false;
      ++continued;
      if (fails_next) {
        error_ = make_error(ErrorClass::bad_stream, text.size(), "fake: record", "behind a barrier");
        return {0, ParseStatus::failed};
      }
    }
    std::size_t used = 0;
    for (const std::byte byte : piece) {
      if (byte == std::byte{'X'}) {
        error_ = make_error(ErrorClass::bad_stream, text.size(), "fake: record", "X");
        return {used, ParseStatus::failed};
      }
      text.push_back(static_cast<char>(byte));
      ++used;
      if (byte == std::byte{'E'}) expanded_bytes_ += expanded_by_e;
      if (byte == std::byte{'P'} && !allowed) {
        parked_ = true;
        return {used, ParseStatus::parked};
      }
    }
    return {used, ParseStatus::need_more};
  }
  std::size_t take_page_data(std::span<const Slice> slices) noexcept override {
    std::size_t taken = 0;
    while (taken < slices.size() && slices[taken].length > 0 && slices[taken].data[0] == std::byte{'#'}) {
      const Slice& slice = slices[taken++];
      text.append(reinterpret_cast<const char*>(slice.data), slice.length);
    }
    return taken;
  }
  bool ready() noexcept override { return allowed; }
  StreamError end_of_stream() noexcept override {
    return complete ? StreamError{} : make_error(ErrorClass::truncated, text.size(), "fake: end", "%s", "");
  }
  const StreamError& error() const noexcept override { return error_; }
  uint64_t offset() const noexcept override { return text.size(); }
  uint64_t needed_from() noexcept override { return needed; }

  std::string text;
  bool allowed = true;
  bool complete = false;
  bool fails_next = false;  // when it goes on after having been parked
  uint64_t needed = kNothingNeeded;
  uint64_t expanded_by_e = 0;
  int calls = 0;
  int continued = 0;

 private:
  bool parked_ = false;
  StreamError error_;
};

class FakeDirectory final : public ChannelDirectory {
 public:
  Introduction identify(Bytes greeting, Handoff&, uint32_t) noexcept override {
    if (greeting.size() < kMagicBytes) return Introduction::needs(kMagicBytes);
    if (greeting[0] == std::byte{'w'}) return {Introduction::Kind::waits, 0, nullptr};
    return greeting[0] == std::byte{'m'} ? Introduction::as(parser) : Introduction{};
  }
  Introduction ask_again(Handoff&, uint32_t) noexcept override {
    return decision == nullptr ? Introduction{Introduction::Kind::waits, 0, nullptr} : decision();
  }
  Introduction left(const Handoff&, StreamEnd end) noexcept override {
    ends.push_back(end);
    return end == StreamEnd::fin ? Introduction{Introduction::Kind::waits, 0, nullptr} : Introduction{};
  }
  void channel_failed(const StreamError& error) noexcept override { errors.push_back(error); }
  bool over() const noexcept override { return is_over; }

  FakeParser parser;
  std::function<Introduction()> decision;  // of a connection that waits; none yet
  std::vector<StreamEnd> ends;             // of connections that waited
  std::vector<StreamError> errors;
  bool is_over = false;
};

class ChannelTest : public ::testing::Test {
 protected:
  void send(const std::string& text) {
    texts_.push_back(std::make_unique<std::string>(text));
    handoff_.push({reinterpret_cast<const std::byte*>(texts_.back()->data()), texts_.back().get(),
                   static_cast<uint32_t>(text.size()), StreamEnd::none});
    handoff_.publish();
  }
  void end(StreamEnd end) {
    handoff_.push_end(end);
    handoff_.publish();
  }
  uint32_t home() {
    std::array<void*, 64> buffers;
    uint32_t count = 0;
    handoff_.reclaim(buffers, count);
    return count;
  }

  Handoff handoff_{64};
  FakeDirectory directory_;
  Channel channel_{handoff_, directory_, 0};
  std::vector<std::unique_ptr<std::string>> texts_;
};

TEST_F(ChannelTest, one_that_waits_is_not_read_and_then_gets_its_greeting_first) {
  send("wait-and");
  send("-more");
  for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(channel_.do_work(64), 0U);
  EXPECT_FALSE(channel_.identified());
  EXPECT_FALSE(channel_.refused());
  EXPECT_EQ(channel_.greeting_wanted(), 0U);
  EXPECT_EQ(home(), 0U);
  directory_.decision = [this] { return Introduction::as(directory_.parser); };
  channel_.do_work(64);
  EXPECT_TRUE(channel_.identified());
  EXPECT_EQ(directory_.parser.text, "wait-and-more");
  EXPECT_EQ(home(), 2U);
}

TEST_F(ChannelTest, one_that_waits_may_turn_out_a_stranger) {
  send("wait-and-more");
  channel_.do_work(64);
  directory_.decision = [] { return Introduction{}; };
  channel_.do_work(64);
  EXPECT_TRUE(channel_.refused());
  channel_.do_work(64);
  EXPECT_TRUE(channel_.over());
  EXPECT_EQ(directory_.parser.text, "");
}

TEST_F(ChannelTest, the_end_of_one_that_waits_is_told_although_bytes_are_unread) {
  for (const StreamEnd end : {StreamEnd::fin, StreamEnd::reset}) {
    Handoff handoff(64);
    Channel channel(handoff, directory_, 0);
    directory_.ends.clear();
    const std::string text = "wait-and-more";
    handoff.push({reinterpret_cast<const std::byte*>(text.data()), nullptr,
                  static_cast<uint32_t>(text.size()), StreamEnd::none});
    handoff.publish();
    channel.do_work(64);
    EXPECT_TRUE(directory_.ends.empty());
    handoff.push_end(end);
    handoff.publish();
    channel.do_work(64);
    ASSERT_EQ(directory_.ends, std::vector{end});
    EXPECT_EQ(channel.refused(), end != StreamEnd::fin);
  }
}

TEST_F(ChannelTest, identified_by_four_bytes_split_anywhere) {
  for (const char* const piece : {"m", "ai", "", "n-and-more"}) send(piece);
  channel_.do_work(64);
  EXPECT_TRUE(channel_.identified());
  EXPECT_EQ(directory_.parser.text, "main-and-more");
  EXPECT_EQ(home(), 4U);
}

TEST_F(ChannelTest, a_stranger_is_refused_and_nothing_else_happens) {
  send("GET / HTTP/1.1");
  channel_.do_work(64);
  EXPECT_TRUE(channel_.refused());
  EXPECT_TRUE(channel_.over());
  EXPECT_TRUE(directory_.errors.empty());
  EXPECT_EQ(home(), 1U);
}

TEST_F(ChannelTest, a_connection_that_ends_before_it_said_what_it_is_is_a_stranger) {
  send("ma");
  end(StreamEnd::fin);
  channel_.do_work(64);
  EXPECT_TRUE(channel_.refused());
  EXPECT_TRUE(directory_.errors.empty());
}

TEST_F(ChannelTest, the_budget_is_kept) {
  for (int i = 0; i < 10; ++i) send("main");
  EXPECT_EQ(channel_.do_work(4), 4U);
  EXPECT_EQ(directory_.parser.text.size(), 16U);
}

TEST_F(ChannelTest, a_parked_parser_keeps_its_place_inside_a_slice) {
  directory_.parser.allowed = false;
  send("main12P34");
  send("56");
  channel_.do_work(64);
  EXPECT_EQ(directory_.parser.text, "main12P");
  EXPECT_EQ(home(), 0U);
  EXPECT_EQ(channel_.do_work(64), 0U);
  directory_.parser.allowed = true;
  channel_.do_work(64);
  EXPECT_EQ(directory_.parser.text, "main12P3456");
  EXPECT_EQ(home(), 2U);
}

TEST_F(ChannelTest, what_a_parser_does_behind_a_barrier_needs_no_further_bytes) {
  directory_.parser.allowed = false;
  send("mainP");
  channel_.do_work(64);
  directory_.parser.allowed = true;
  EXPECT_GT(channel_.do_work(64), 0U);
  EXPECT_EQ(directory_.parser.continued, 1);
}

TEST_F(ChannelTest, slices_of_page_data_take_the_short_way_in_order) {
  for (const char* const piece : {"main", "#1", "#2", "record", "#3", "recordP", "#4"}) send(piece);
  directory_.parser.allowed = false;
  channel_.do_work(64);
  EXPECT_EQ(directory_.parser.text, "main#1#2record#3recordP");
  EXPECT_EQ(directory_.parser.calls, 4);  // the magic, what is left of its slice, two records
  EXPECT_EQ(home(), 6U);
  directory_.parser.allowed = true;
  channel_.do_work(64);
  EXPECT_EQ(directory_.parser.text, "main#1#2record#3recordP#4");
  EXPECT_EQ(home(), 1U);
}

TEST_F(ChannelTest, the_short_way_keeps_the_budget_and_the_count_of_bytes) {
  send("main");
  for (const char* const piece : {"#23456", "#23456", "#23456", "#23456"}) send(piece);
  directory_.parser.needed = 4 + 6 + 3;  // inside the second slice of page data
  EXPECT_EQ(channel_.do_work(4), 4U);
  EXPECT_EQ(directory_.parser.text.size(), 4U + 3 * 6U);
  EXPECT_EQ(home(), 2U);
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  EXPECT_EQ(channel_.do_work(4), 1U);
  EXPECT_EQ(home(), 3U);
}

TEST_F(ChannelTest, the_stream_may_end_behind_page_data) {
  send("main");
  send("#1");
  end(StreamEnd::fin);
  directory_.parser.complete = true;
  channel_.do_work(64);
  EXPECT_EQ(directory_.parser.text, "main#1");
  EXPECT_EQ(channel_.end(), StreamEnd::fin);
  EXPECT_TRUE(directory_.errors.empty());
}

TEST_F(ChannelTest, bytes_still_referenced_are_not_given_back) {
  send("main");
  send("0123");
  send("4567");
  directory_.parser.needed = 6;  // inside the second slice
  channel_.do_work(64);
  EXPECT_EQ(home(), 1U);
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  send("8");
  channel_.do_work(64);
  EXPECT_EQ(home(), 3U);
  directory_.parser.needed = 13;
  send("9");
  channel_.do_work(64);
  EXPECT_EQ(home(), 0U);
}

// Found by the simulation, seed 292: all slots wait for another node's worker, the window is closed, no byte
// comes.
TEST_F(ChannelTest, what_is_no_longer_referenced_is_given_back_although_nothing_comes) {
  send("main");
  send("0123");
  directory_.parser.needed = 0;
  channel_.do_work(64);
  EXPECT_EQ(home(), 0U);
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  EXPECT_EQ(channel_.do_work(64), 0U);
  EXPECT_EQ(home(), 2U);

  directory_.parser.allowed = false;
  directory_.parser.needed = 8;
  send("4567P");
  channel_.do_work(64);
  EXPECT_EQ(home(), 0U);
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  channel_.do_work(64);  // parked
  EXPECT_EQ(home(), 1U);
}

TEST_F(ChannelTest, a_failure_is_told_once_and_the_ring_let_go) {
  send("mainX");
  send("more");
  channel_.do_work(64);
  ASSERT_EQ(directory_.errors.size(), 1U);
  EXPECT_EQ(directory_.errors[0].error_class, ErrorClass::bad_stream);
  EXPECT_TRUE(channel_.over());
  EXPECT_EQ(home(), 2U);
}

TEST_F(ChannelTest, an_early_end_says_who_ended_it) {
  send("main");
  end(StreamEnd::reset);
  channel_.do_work(64);
  ASSERT_EQ(directory_.errors.size(), 1U);
  EXPECT_STREQ(directory_.errors[0].text.data(), "the source reset the connection");
}

TEST_F(ChannelTest, lets_go_when_the_session_is_over) {
  send("main");
  directory_.is_over = true;
  channel_.do_work(64);
  EXPECT_TRUE(channel_.over());
  EXPECT_TRUE(handoff_.detached());
  EXPECT_EQ(home(), 1U);
}

// With memory on several nodes another worker may still be reading the buffers: at the end of the stream,
// after a failure, and when the session ends.
TEST_F(ChannelTest, buffers_under_way_to_another_node_are_kept_to_the_end) {
  send("main");
  directory_.parser.needed = 0;
  directory_.parser.complete = true;
  channel_.do_work(64);
  end(StreamEnd::fin);
  channel_.do_work(64);
  directory_.is_over = true;
  channel_.do_work(64);
  EXPECT_FALSE(channel_.over());
  EXPECT_FALSE(handoff_.detached());
  EXPECT_EQ(home(), 0U);
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  EXPECT_EQ(channel_.do_work(64), 1U);
  EXPECT_TRUE(channel_.over());
  EXPECT_TRUE(handoff_.detached());
  EXPECT_EQ(home(), 1U);
}

// The bytes behind a barrier were fed before it opened; the failure shows without another slice.
TEST_F(ChannelTest, a_failure_when_a_parked_parser_goes_on_lets_go_too) {
  directory_.parser.allowed = false;
  send("mainP");
  channel_.do_work(64);
  directory_.parser.fails_next = true;
  directory_.parser.allowed = true;
  channel_.do_work(64);
  channel_.do_work(64);
  EXPECT_EQ(directory_.errors.size(), 1U);
  EXPECT_TRUE(channel_.over());
  EXPECT_TRUE(handoff_.detached());
}

TEST_F(ChannelTest, what_is_written_beyond_what_came_counts_as_slices) {
  directory_.parser.expanded_by_e = 2 * Channel::kExpandedBytesPerSlice;
  send("main");
  for (int i = 0; i < 4; ++i) send("E");
  EXPECT_EQ(channel_.do_work(8), 8U);  // main, and two of 1 + 2 slices each, which leaves one
  EXPECT_EQ(directory_.parser.text, "mainEEE");
  EXPECT_EQ(channel_.do_work(8), 1U);  // not used up: the source has sent no more
  EXPECT_EQ(directory_.parser.text, "mainEEEE");
  EXPECT_EQ(channel_.owed_turns.read(), 0U);
}

TEST_F(ChannelTest, what_one_slice_writes_beyond_a_turn_is_taken_from_the_next_ones) {
  directory_.parser.expanded_by_e = 20 * Channel::kExpandedBytesPerSlice;
  send("main");
  send("E");
  send("#");
  EXPECT_EQ(channel_.do_work(8), 8U);
  EXPECT_EQ(directory_.parser.text, "mainE");  // 2 and 20: 8 now, 14 owed
  home();
  EXPECT_EQ(channel_.do_work(8), 8U);
  EXPECT_EQ(directory_.parser.text, "mainE");
  EXPECT_EQ(channel_.owed_turns.read(), 1U);
  EXPECT_EQ(channel_.do_work(8), 1U);
  EXPECT_EQ(directory_.parser.text, "mainE#");
}

TEST_F(ChannelTest, beside_a_bomb_an_honest_channel_keeps_its_part_of_a_worker) {
  constexpr uint32_t kBomb = 512 << 10;  // a multifd packet of zeros, all of it in one slice
  constexpr uint32_t kHonest = 1448;     // plain page data
  const std::string honest_text = "#" + std::string(kHonest - 1, '.');
  FakeDirectory bombs;
  bombs.parser.expanded_by_e = kBomb;
  Handoff bomb_handoff(1024);
  Handoff honest_handoff(1024);
  Channel bomb(bomb_handoff, bombs, 0);
  Channel honest(honest_handoff, directory_, 0);
  LoaderWorker worker(2);
  ASSERT_TRUE(worker.attach(bomb));
  ASSERT_TRUE(worker.attach(honest));
  const auto fill = [](Handoff& handoff, const std::string& text) {
    std::array<void*, 64> buffers;
    uint32_t count = 0;
    while (handoff.reclaim(buffers, count) > 0) continue;
    while (handoff.writable() > 0)
      handoff.push({reinterpret_cast<const std::byte*>(text.data()), nullptr,
                    static_cast<uint32_t>(text.size()), StreamEnd::none});
    handoff.publish();
  };
  const std::string main = "main";
  const std::string e = "E";
  for (Handoff* const handoff : {&bomb_handoff, &honest_handoff})
    handoff->push({reinterpret_cast<const std::byte*>(main.data()), nullptr, 4, StreamEnd::none});
  uint64_t now_ns = 0;
  for (int turn = 0; turn < 1000; ++turn) {
    fill(bomb_handoff, e);
    fill(honest_handoff, honest_text);
    worker.do_work(now_ns += LoaderWorker::kGatherNs);
  }
  const double bomb_bytes = static_cast<double>(bombs.parser.expanded_bytes());
  const double honest_bytes = static_cast<double>(directory_.parser.text.size());
  EXPECT_GT(bombs.parser.expanded_bytes(), 0U);
  EXPECT_GT(honest_bytes / (honest_bytes + bomb_bytes), 0.8 * 0.5);  // beside its like it has half
}

// One session with eight channels, one with a single one, all of which always have more: each session gets
// half.
TEST_F(ChannelTest, sessions_share_a_worker_whatever_the_number_of_their_channels) {
  constexpr uint32_t kMany = 8;
  FakeDirectory single;
  std::vector<std::unique_ptr<Handoff>> handoffs;
  std::vector<std::unique_ptr<Channel>> channels;
  LoaderWorker worker(kMany + 1);
  for (uint32_t i = 0; i < kMany + 1; ++i) {
    handoffs.push_back(std::make_unique<Handoff>(2048));
    channels.push_back(std::make_unique<Channel>(*handoffs[i], i < kMany ? directory_ : single, 0));
    ASSERT_TRUE(worker.attach(*channels[i]));
  }
  const std::string main = "main";
  const std::string page = "#234";
  for (const auto& handoff : handoffs)
    handoff->push({reinterpret_cast<const std::byte*>(main.data()), nullptr, 4, StreamEnd::none});
  uint64_t now_ns = 0;
  for (int turn = 0; turn < 200; ++turn) {
    for (const auto& handoff : handoffs) {
      std::array<void*, 64> buffers;
      uint32_t count = 0;
      while (handoff->reclaim(buffers, count) > 0) continue;
      while (handoff->writable() > 0)
        handoff->push({reinterpret_cast<const std::byte*>(page.data()), nullptr, 4, StreamEnd::none});
      handoff->publish();
    }
    worker.do_work(now_ns += LoaderWorker::kGatherNs);
  }
  const auto many_bytes = static_cast<double>(directory_.parser.text.size());
  const auto single_bytes = static_cast<double>(single.parser.text.size());
  EXPECT_NEAR(single_bytes / (single_bytes + many_bytes), 0.5, 0.05);
}

TEST_F(ChannelTest, a_worker_lets_go_of_what_is_over) {
  LoaderWorker worker(4);
  ASSERT_TRUE(worker.attach(channel_));
  send("main");
  worker.do_work(0);
  EXPECT_EQ(worker.serving(), 1U);
  directory_.parser.complete = true;
  end(StreamEnd::fin);
  worker.do_work(LoaderWorker::kGatherNs);
  EXPECT_EQ(worker.serving(), 0U);
  EXPECT_TRUE(channel_.let_go());
  EXPECT_TRUE(directory_.errors.empty());
}

TEST_F(ChannelTest, a_worker_lets_a_flow_gather_but_no_longer_than_said) {
  LoaderWorker worker(4);
  ASSERT_TRUE(worker.attach(channel_));
  send("main");
  worker.do_work(1000);
  send("#1");
  EXPECT_EQ(worker.do_work(1000 + LoaderWorker::kGatherNs - 1), 0U);
  EXPECT_EQ(worker.do_work(1000 + LoaderWorker::kGatherNs), 1U);
  EXPECT_EQ(directory_.parser.text, "main#1");
}

TEST_F(ChannelTest, a_worker_looks_in_each_turn_at_a_channel_that_was_silent_or_brought_much) {
  Handoff handoff(2 * LoaderWorker::kSlicesPerTurn);
  Channel channel(handoff, directory_, 0);
  LoaderWorker worker(4);
  ASSERT_TRUE(worker.attach(channel));
  EXPECT_GT(worker.do_work(1), 0U);  // it came
  EXPECT_EQ(worker.do_work(2), 0U);
  const std::string text = "main";
  for (uint32_t i = 0; i < LoaderWorker::kSlicesPerTurn + 1; ++i)
    handoff.push({reinterpret_cast<const std::byte*>(text.data()), nullptr, 4, StreamEnd::none});
  handoff.publish();
  EXPECT_EQ(worker.do_work(3), LoaderWorker::kSlicesPerTurn);
  EXPECT_EQ(worker.do_work(4), 1U);
}

TEST_F(ChannelTest, beside_one_that_flows_a_silent_channel_is_looked_at_when_its_time_has_come) {
  FakeDirectory others;
  Handoff silent_handoff(1024);
  Channel silent(silent_handoff, others, 0);
  LoaderWorker worker(4);
  ASSERT_TRUE(worker.attach(channel_));
  ASSERT_TRUE(worker.attach(silent));
  const std::string text = "main";
  const auto fill = [&text](Handoff& handoff, uint32_t slices) {
    for (uint32_t i = 0; i < slices; ++i)
      handoff.push({reinterpret_cast<const std::byte*>(text.data()), nullptr, 4, StreamEnd::none});
    handoff.publish();
  };
  const uint64_t idle_ns = 2 * LoaderWorker::kIdleNsPerChannel;
  fill(handoff_, 3 * LoaderWorker::kSlicesPerTurn);
  EXPECT_GT(worker.do_work(1000), LoaderWorker::kSlicesPerTurn - 1);
  fill(silent_handoff, 1);
  EXPECT_EQ(worker.do_work(1000 + idle_ns - 1), LoaderWorker::kSlicesPerTurn);
  EXPECT_FALSE(silent.identified());
  EXPECT_EQ(worker.do_work(1000 + idle_ns), LoaderWorker::kSlicesPerTurn + 1);
  EXPECT_TRUE(silent.identified());
}

TEST_F(ChannelTest, behind_a_turn_that_brought_nothing_a_silent_channel_is_looked_at_at_once) {
  FakeDirectory others;
  Handoff silent_handoff(1024);
  Channel silent(silent_handoff, others, 0);
  LoaderWorker worker(4);
  ASSERT_TRUE(worker.attach(channel_));
  ASSERT_TRUE(worker.attach(silent));
  send("main");
  EXPECT_GT(worker.do_work(1000), 0U);
  const std::string text = "main";
  silent_handoff.push({reinterpret_cast<const std::byte*>(text.data()), nullptr, 4, StreamEnd::none});
  silent_handoff.publish();
  EXPECT_EQ(worker.do_work(1001), 0U);
  EXPECT_EQ(worker.do_work(1002), 1U);
  EXPECT_TRUE(silent.identified());
}

}  // namespace
}  // namespace migrx
