// The other end of a socket pair is the test; TLS is played by one who writes letters in capitals.
#include "loader/destination/destination_link.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace migrx {
namespace {

constexpr uint64_t kMs = 1'000'000;

Bytes letters(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Its handshake is "hello", answered by "welcome", answered by "done"; text is one letter higher on the wire.
class PlayedTls final : public SecuredLink {
 public:
  struct State {
    Phase phase = Phase::wants_bytes;
    bool held = false;  // its helper does not get to it
    std::string heard;
    std::string problem;
  };
  explicit PlayedTls(std::shared_ptr<State> state) : state_(std::move(state)) {}
  [[nodiscard]] Phase phase() const noexcept override {
    return state_->held ? Phase::working : state_->phase;
  }
  void go_on(Bytes from_peer) override {
    EXPECT_EQ(phase(), Phase::wants_bytes);
    if (from_peer.empty()) return say("hello");
    for (const std::byte b : from_peer) state_->heard.push_back(static_cast<char>(b));
    if (state_->heard.starts_with("welcome")) {
      state_->phase = Phase::open;
      say("done");
    } else if (!std::string("welcome").starts_with(state_->heard)) {
      state_->phase = Phase::failed;
      state_->problem = "no welcome";
    }
  }
  [[nodiscard]] std::vector<std::byte> take_output() override { return std::exchange(output_, {}); }
  [[nodiscard]] bool seal(Bytes text) override {
    for (const std::byte b : text) output_.push_back(std::byte(static_cast<unsigned char>(b) + 1));
    return true;
  }
  [[nodiscard]] bool open(Bytes from_peer, std::vector<std::byte>& text) override {
    for (const std::byte b : from_peer) {
      if (b == std::byte{'.'}) return false;
      if (b == std::byte{'!'}) {
        state_->problem = "a forged record";
        return false;
      }
      text.push_back(std::byte(static_cast<unsigned char>(b) - 1));
    }
    return true;
  }
  [[nodiscard]] std::string problem() const override { return state_->problem; }

 private:
  void say(const std::string& text) {
    const Bytes bytes = letters(text);
    output_.insert(output_.end(), bytes.begin(), bytes.end());
  }
  const std::shared_ptr<State> state_;
  std::vector<std::byte> output_;
};

class DestinationLinkTest : public testing::Test {
 protected:
  void begin(bool secured) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    peer_ = Descriptor(ends[1]);
    state_ = std::make_shared<PlayedTls::State>();
    link_.begin(Descriptor(ends[0]), secured ? std::make_unique<PlayedTls>(state_) : nullptr, now_ns_);
  }
  void work(int turns = 5) {
    for (int i = 0; i < turns; ++i) (void)link_.do_work(now_ns_ += kMs);
  }
  void say(const std::string& text) const {
    ASSERT_EQ(::send(peer_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  [[nodiscard]] std::string heard() const {
    std::string text;
    std::array<char, 4096> some;
    for (ssize_t n; (n = ::recv(peer_.get(), some.data(), some.size(), 0)) > 0;)
      text.append(some.data(), static_cast<std::size_t>(n));
    return text;
  }
  std::string received(std::size_t most = 512) {
    std::vector<std::byte> some(most);
    const std::size_t n = link_.receive(some);
    return {reinterpret_cast<const char*>(some.data()), n};
  }
  void shake_hands() {
    work();
    ASSERT_EQ(heard(), "hello");
    say("welcome");
    work();
    ASSERT_TRUE(link_.open());
    ASSERT_EQ(heard(), "done");
  }

  DestinationLink link_;
  Descriptor peer_;
  std::shared_ptr<PlayedTls::State> state_;
  uint64_t now_ns_ = 1'000 * kMs;
};

TEST_F(DestinationLinkTest, plain_text_goes_through_at_once_and_as_it_is) {
  begin(false);
  EXPECT_TRUE(link_.open());
  EXPECT_EQ(link_.send(letters("stream")), 6U);
  EXPECT_EQ(heard(), "stream");
  say("PONG");
  EXPECT_EQ(received(), "PONG");
  EXPECT_EQ(link_.end(), DestinationLink::End::none);
  peer_.reset();
  EXPECT_EQ(received(), "");
  EXPECT_EQ(link_.end(), DestinationLink::End::closed);
  EXPECT_EQ(link_.error(), 0);
}

TEST_F(DestinationLinkTest, no_text_is_taken_before_the_handshake_is_done) {
  begin(true);
  EXPECT_FALSE(link_.open());
  EXPECT_EQ(link_.send(letters("HAL")), 0U);
  shake_hands();
  EXPECT_EQ(link_.send(letters("HAL")), 3U);
  EXPECT_EQ(heard(), "IBM");
}

TEST_F(DestinationLinkTest, text_is_given_out_in_pieces_of_the_callers_size) {
  begin(true);
  work();
  say("welcome");
  work();
  say("IBM");
  EXPECT_EQ(received(2), "HA");
  EXPECT_EQ(received(), "L");
  EXPECT_EQ(received(), "");
}

TEST_F(DestinationLinkTest, while_another_thread_shakes_hands_nothing_is_read_and_nobody_is_woken) {
  begin(true);
  work();
  state_->held = true;
  say("welcome");
  work();
  EXPECT_FALSE(link_.reads()) << "a poll of the socket would return again and again";
  EXPECT_EQ(state_->heard, "");
  state_->held = false;
  EXPECT_TRUE(link_.reads());
  work();
  EXPECT_TRUE(link_.open());
}

TEST_F(DestinationLinkTest, one_that_never_answers_the_handshake_is_given_up_in_time) {
  begin(true);
  work();
  now_ns_ += DestinationLink::kHandshakeNs - 100 * kMs;
  work();
  EXPECT_EQ(link_.end(), DestinationLink::End::none);
  now_ns_ += 100 * kMs;
  work();
  EXPECT_EQ(link_.end(), DestinationLink::End::tls_late);
}

TEST_F(DestinationLinkTest, a_handshake_that_was_never_worked_on_is_given_up_in_time_as_well) {
  begin(true);
  state_->held = true;
  now_ns_ += DestinationLink::kHandshakeNs + kMs;
  work();
  EXPECT_EQ(link_.end(), DestinationLink::End::tls_late);
}

TEST_F(DestinationLinkTest, a_handshake_without_end_has_a_bound_in_bytes) {
  begin(true);
  state_->heard = "we";  // and never the rest: as one who goes on with messages that GnuTLS ignores
  work();
  const std::string some(8192, '\0');
  for (std::size_t sent = 0; sent <= DestinationLink::kHandshakeBytesMax; sent += some.size()) {
    state_->heard.clear();
    state_->phase = SecuredLink::Phase::wants_bytes;
    ASSERT_EQ(link_.end(), DestinationLink::End::none);
    say(some);
    (void)link_.do_work(now_ns_);
  }
  EXPECT_EQ(link_.end(), DestinationLink::End::tls_failed);
  EXPECT_NE(link_.tls_problem().find("longer than"), std::string::npos) << link_.tls_problem();
}

TEST_F(DestinationLinkTest, the_peers_close_within_the_handshake_is_an_end) {
  begin(true);
  work();
  peer_.reset();
  work();
  EXPECT_EQ(link_.end(), DestinationLink::End::closed);
  EXPECT_FALSE(link_.open());
}

TEST_F(DestinationLinkTest, a_handshake_that_fails_says_why) {
  begin(true);
  work();
  say("go away");
  work();
  EXPECT_EQ(link_.end(), DestinationLink::End::tls_failed);
  EXPECT_EQ(link_.tls_problem(), "no welcome");
}

// Its last word counts: a verdict may stand before it.
TEST_F(DestinationLinkTest, text_before_the_peers_farewell_is_still_given_out) {
  begin(true);
  shake_hands();
  say("IBM.");
  EXPECT_EQ(received(2), "HA");
  EXPECT_EQ(received(), "L");
  EXPECT_EQ(link_.end(), DestinationLink::End::closed);
  EXPECT_EQ(link_.error(), 0);
}

TEST_F(DestinationLinkTest, a_forged_record_ends_it) {
  begin(true);
  shake_hands();
  say("!");
  EXPECT_EQ(received(), "");
  EXPECT_EQ(link_.end(), DestinationLink::End::tls_failed);
  EXPECT_EQ(link_.tls_problem(), "a forged record");
}

TEST_F(DestinationLinkTest, a_peer_that_reads_slowly_gets_every_byte_in_its_order) {
  begin(true);
  const int small = 4096;
  (void)::setsockopt(link_.fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  shake_hands();
  std::string text;
  for (int i = 0; i < 500'000; ++i) text.push_back(static_cast<char>('a' + i % 25));
  std::string got;
  for (std::size_t at = 0; at < text.size() || link_.sending();) {
    const std::size_t n = at < text.size() ? link_.send(letters(text).subspan(at)) : 0;
    at += n;
    (void)link_.do_work(now_ns_);
    if (n == 0) got += heard();
  }
  got += heard();
  for (char& c : text) ++c;
  EXPECT_EQ(got, text);
}

TEST_F(DestinationLinkTest, a_peer_that_is_gone_is_seen_when_text_is_sent) {
  for (const bool secured : {false, true}) {
    begin(secured);
    if (secured) shake_hands();
    peer_.reset();
    EXPECT_EQ(link_.send(letters("x")), 0U);
    EXPECT_EQ(link_.end(), DestinationLink::End::closed);
    EXPECT_EQ(link_.error(), EPIPE);
  }
}

}  // namespace
}  // namespace migrx
