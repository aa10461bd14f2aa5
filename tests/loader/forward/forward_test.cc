#include "loader/forward/forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace migrx {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

// What the server has of it, and what it says.
struct ServerState {
  ServerLink::Way way = ServerLink::Way::open;
  std::string heard;
  std::string says;
  std::size_t room = 1 << 20;      // bytes that it takes before it is full
  std::size_t step_max = 1 << 20;  // of one call
  bool finished = false;           // it knows that no more comes
  bool ends = false;               // after what it says
  bool fails = false;
  bool closed = false;
  bool was_reset = false;
};

class FakeLink final : public ServerLink {
 public:
  explicit FakeLink(ServerState& state) : state_(state) {}
  Way way() noexcept override { return state_.way; }
  Step send(std::span<const Bytes> pieces) noexcept override {
    EXPECT_LE(pieces.size(), kPiecesMax);
    EXPECT_FALSE(state_.closed || state_.finished);
    if (state_.fails) return {.failed = true};
    Step step;
    for (const Bytes piece : pieces) {
      const std::size_t n = std::min({piece.size(), state_.room, state_.step_max - step.bytes});
      state_.heard.append(reinterpret_cast<const char*>(piece.data()), n);
      state_.room -= n;
      step.bytes += n;
    }
    return step;
  }
  Step receive(std::span<std::byte> into) noexcept override {
    EXPECT_FALSE(state_.closed);
    if (state_.fails) return {.failed = true};
    const std::size_t n = std::min({into.size(), state_.says.size(), state_.step_max});
    std::memcpy(into.data(), state_.says.data(), n);
    state_.says.erase(0, n);
    return {.bytes = n, .ended = n == 0 && state_.ends};
  }
  void finish_sending() noexcept override { state_.finished = true; }
  void close(bool reset) noexcept override {
    state_.was_reset = reset || state_.was_reset;
    state_.closed = true;
  }
  int fd() const noexcept override { return state_.closed ? -1 : 99; }

 private:
  ServerState& state_;
};

struct ForwardTest : testing::Test {
  Handoff ring{64};
  ServerState server;
  std::unique_ptr<Forward> forward;
  std::deque<std::string> buffers;  // of slices
  std::string heard;                // by the peer
  bool peer_closed = false;
  bool peer_reset = false;
  uint64_t now = 100 * kSecond;

  void SetUp() override { begin(); }
  void begin() {
    forward = std::make_unique<Forward>(ring, std::make_unique<FakeLink>(server), ForwardLimits{}, now);
  }
  // As the poll core does. False: the window is closed.
  bool say(const std::string& text) {
    reclaim();
    if (ring.writable() == 0) return false;
    buffers.push_back(text);
    ring.push(reinterpret_cast<const std::byte*>(buffers.back().data()), &buffers.back(),
              static_cast<uint32_t>(text.size()));
    ring.publish();
    ring.bytes_received.add(text.size());
    return true;
  }
  void end(StreamEnd how) {
    ring.push_end(how);
    ring.publish();
  }
  uint32_t reclaim() {
    std::array<void*, 128> out;
    uint32_t count = 0;
    ring.reclaim(out, count);
    return count;
  }
  // So many commands; nothing else can be done after a close.
  void take_commands(uint32_t count = 1000) {
    ConnectionCommand command;
    while (count-- > 0 && ring.take_command(command)) {
      EXPECT_FALSE(peer_closed || peer_reset);
      if (command.kind == ConnectionCommand::Kind::send)
        heard.append(reinterpret_cast<const char*>(command.bytes.data()), command.length);
      peer_closed = peer_closed || command.kind == ConnectionCommand::Kind::close;
      peer_reset = peer_reset || command.kind == ConnectionCommand::Kind::reset;
    }
  }
  void work(uint64_t ns = 0) {
    now += ns;
    forward->do_work(now);
  }
  void expect_failed(Forward::End end) {
    take_commands();
    EXPECT_TRUE(forward->over());
    EXPECT_EQ(forward->end(), end);
    EXPECT_TRUE(peer_reset);
    EXPECT_TRUE(server.closed && server.was_reset);
    EXPECT_TRUE(ring.detached());
  }
};

TEST_F(ForwardTest, bytes_go_both_ways_and_their_buffers_home) {
  server.says = "NBDMAGIC";
  work();
  take_commands();
  EXPECT_EQ(heard, "NBDMAGIC");
  say("write ");
  say("this");
  work();
  EXPECT_EQ(server.heard, "write this");
  EXPECT_EQ(reclaim(), 2U);
  EXPECT_EQ(forward->bytes_to_server.read(), 10U);
  EXPECT_EQ(forward->bytes_to_peer.read(), 8U);
}

TEST_F(ForwardTest, nothing_is_taken_from_the_peer_before_the_server_is_there) {
  server.way = ServerLink::Way::opening;
  say("early");
  work();
  EXPECT_EQ(server.heard, "");
  EXPECT_EQ(forward->wake_fd(), -1);
  server.way = ServerLink::Way::open;
  work();
  EXPECT_EQ(server.heard, "early");
  EXPECT_EQ(forward->wake_fd(), 99);
}

TEST_F(ForwardTest, a_server_that_refuses_resets_the_peer) {
  server.way = ServerLink::Way::failed;
  work();
  expect_failed(Forward::End::unreachable);
}

TEST_F(ForwardTest, a_server_that_does_not_answer_is_given_up) {
  server.way = ServerLink::Way::opening;
  work(4 * kSecond);
  EXPECT_FALSE(forward->over());
  work(kSecond);
  expect_failed(Forward::End::unreachable);
}

TEST_F(ForwardTest, a_full_server_closes_the_peers_window_and_loses_nothing) {
  server.room = 10;
  std::string said;
  while (say("0123456")) said += "0123456";
  work();
  EXPECT_EQ(server.heard, "0123456012");
  EXPECT_EQ(reclaim(), 1U);  // the second slice is needed still
  for (int turns = 0; server.heard.size() < said.size() && turns < 100; ++turns) {
    server.room = 11;
    work();
  }
  EXPECT_EQ(server.heard, said);
}

TEST_F(ForwardTest, a_peer_that_does_not_read_stops_the_server) {
  server.says = std::string(1 << 20, 'x');
  for (int turns = 0; turns < 100; ++turns) work();
  // 64 commands of 60 bytes, and what was read for the next ones.
  EXPECT_GE(server.says.size(), (1U << 20) - 64 * 60 - 2 * 4096);
  EXPECT_EQ(forward->wake_fd(), -1);
  for (int turns = 0; heard.size() < 1U << 20 && turns < 100'000; ++turns) {
    take_commands(7);
    work();
  }
  EXPECT_EQ(heard, std::string(1 << 20, 'x'));
}

TEST_F(ForwardTest, a_turn_is_bounded) {
  server.says = std::string(1 << 20, 'x');
  uint32_t most = 0;
  for (int turns = 0; turns < 1000; ++turns) {
    while (say("y")) {
    }
    most = std::max(most, forward->do_work(now));
    take_commands();
  }
  EXPECT_LE(most, 2 * Forward::kTurn + ServerLink::kPiecesMax);
}

TEST_F(ForwardTest, the_peer_closes_first) {
  say("all");
  end(StreamEnd::fin);
  work();
  EXPECT_EQ(server.heard, "all");
  EXPECT_TRUE(server.finished);
  EXPECT_FALSE(forward->over());
  server.says = "last words";
  server.ends = true;
  work();
  work();
  take_commands();
  EXPECT_EQ(heard, "last words");
  EXPECT_TRUE(peer_closed && !peer_reset);
  EXPECT_TRUE(forward->over());
  EXPECT_EQ(forward->end(), Forward::End::orderly);
  EXPECT_FALSE(server.was_reset);
}

TEST_F(ForwardTest, the_server_closes_first) {
  server.says = "bye";
  server.ends = true;
  work();
  take_commands();
  EXPECT_EQ(heard, "bye");
  EXPECT_TRUE(peer_closed);
  EXPECT_FALSE(forward->over());
  say("more");
  end(StreamEnd::fin);
  work();
  EXPECT_EQ(server.heard, "more");
  EXPECT_EQ(forward->end(), Forward::End::orderly);
}

TEST_F(ForwardTest, a_fin_waits_until_the_server_has_all_before_it) {
  server.room = 2;
  say("four");
  end(StreamEnd::fin);
  work();
  EXPECT_FALSE(server.finished);
  server.room = 2;
  work();
  work();
  EXPECT_EQ(server.heard, "four");
  EXPECT_TRUE(server.finished);
}

TEST_F(ForwardTest, a_reset_of_the_peer_resets_the_server_whatever_waits) {
  for (const StreamEnd how : {StreamEnd::reset, StreamEnd::timed_out, StreamEnd::local}) {
    server = {};
    server.room = 0;
    begin();
    say("never taken");
    end(how);
    work();
    EXPECT_TRUE(forward->over());
    EXPECT_EQ(forward->end(), Forward::End::peer_gone);
    EXPECT_TRUE(server.closed && server.was_reset);
    EXPECT_EQ(server.heard, "");
    take_commands();
    reclaim();
    ring.retire();
    ASSERT_TRUE(ring.reusable());
    ring.reset();
    peer_reset = false;
  }
}

TEST_F(ForwardTest, a_peer_that_goes_while_the_server_is_awaited) {
  server.way = ServerLink::Way::opening;
  end(StreamEnd::reset);
  work();
  EXPECT_EQ(forward->end(), Forward::End::peer_gone);
}

TEST_F(ForwardTest, a_server_that_dies_resets_the_peer) {
  say("hello");
  work();
  server.fails = true;
  work();
  expect_failed(Forward::End::server_gone);
}

TEST_F(ForwardTest, the_peer_is_told_as_soon_as_there_is_room_for_it) {
  server.says = std::string(10000, 'x');
  work();
  work();  // the ring of commands is full
  server.fails = true;
  say("y");
  work();
  EXPECT_EQ(forward->end(), Forward::End::server_gone);
  EXPECT_TRUE(server.closed);
  EXPECT_FALSE(forward->over());
  EXPECT_FALSE(ring.detached());  // what the peer sends is not thrown away as if it had been taken
  take_commands(1);
  work();
  expect_failed(Forward::End::server_gone);
}

TEST_F(ForwardTest, silence_is_borne_after_the_first_word) {
  say("hello");
  work();
  for (int hours = 0; hours < 48; ++hours) work(3600 * kSecond);
  EXPECT_FALSE(forward->over());
}

TEST_F(ForwardTest, who_never_says_anything_loses_its_place) {
  server.says = "NBDMAGIC";
  work();
  work(29 * kSecond);
  EXPECT_FALSE(forward->over());
  work(2 * kSecond);
  expect_failed(Forward::End::silent);
}

TEST_F(ForwardTest, after_one_side_has_ended_the_other_has_some_time) {
  say("hello");
  end(StreamEnd::fin);
  work();
  work(9 * kSecond);
  server.says = "a word";
  work();
  work(9 * kSecond);
  EXPECT_FALSE(forward->over());
  work(2 * kSecond);
  expect_failed(Forward::End::lingering);
}

TEST_F(ForwardTest, a_server_that_is_full_for_ever_does_not_keep_a_peer_that_has_closed) {
  server.room = 0;
  say("hello");
  work();
  end(StreamEnd::fin);
  work(11 * kSecond);
  expect_failed(Forward::End::lingering);
}

TEST_F(ForwardTest, stop_ends_it_at_once) {
  say("hello");
  forward->stop();
  expect_failed(Forward::End::given_up);
  forward->stop();
}

TEST_F(ForwardTest, stop_ends_it_without_room_for_a_command_too) {
  server.says = std::string(10000, 'x');
  work();
  work();
  forward->stop();
  EXPECT_TRUE(forward->over());
  EXPECT_TRUE(ring.detached());
}

// Whatever the pieces: both streams arrive as they were said.
TEST_F(ForwardTest, random_pieces_arrive_in_order) {
  std::mt19937 random(7);
  std::string said;
  std::string answered;
  uint8_t next = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    server.room = random() % 3000;
    server.step_max = 1 + random() % 2000;
    if (random() % 2 == 0) {
      std::string text(1 + random() % 1448, '\0');
      for (char& c : text) c = static_cast<char>(next++);
      if (say(text)) said += text;
    }
    if (random() % 4 == 0) {
      std::string text(1 + random() % 300, '\0');
      for (char& c : text) c = static_cast<char>(next++);
      server.says += text;
      answered += text;
    }
    take_commands(random() % 8);
    work();
    ASSERT_EQ(server.heard.compare(0, server.heard.size(), said, 0, server.heard.size()), 0);
  }
  server.room = server.step_max = 1 << 30;
  for (int turn = 0; turn < 20'000; ++turn) {
    take_commands();
    work();
  }
  EXPECT_TRUE(server.heard == said);
  EXPECT_TRUE(heard == answered);
}

}  // namespace
}  // namespace migrx
