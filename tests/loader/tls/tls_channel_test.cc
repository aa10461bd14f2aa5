#include "loader/tls/tls_channel.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>

#include "loader/tls/server_session.h"
#include "loader/tls/tls_acceptor.h"
#include "tests/loader/tls/test_pki.h"
#include "tests/loader/tls/tls_client.h"

namespace migrx {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Keeps the plaintext; parks after a 'P' until allowed to go on; the rest after an 'F' is an error.
class KeepingParser final : public ChannelParser {
 public:
  ParseResult parse(Bytes piece) noexcept override {
    std::size_t used = 0;
    for (const std::byte b : piece) {
      const char c = static_cast<char>(b);
      text.push_back(c);
      ++used;
      if (c == 'F') {
        error_ = make_error(ErrorClass::bad_stream, text.size(), "kept", "F");
        return {used, ParseStatus::failed};
      }
      if (c == 'P' && !allowed) return {used, ParseStatus::parked};
    }
    return {used, ParseStatus::need_more};
  }
  bool ready() noexcept override { return allowed; }
  StreamError end_of_stream() noexcept override { return {}; }
  const StreamError& error() const noexcept override { return error_; }
  uint64_t offset() const noexcept override { return text.size(); }
  uint64_t needed_from() noexcept override { return needed; }
  std::string text;
  bool allowed = true;
  uint64_t needed = kNothingNeeded;

 private:
  StreamError error_;
};

class OneParser final : public ChannelDirectory {
 public:
  Introduction identify(Bytes greeting, Handoff&, uint32_t) noexcept override {
    if (greeting.size() < kMagicBytes) return Introduction::needs(kMagicBytes);
    if (greeting[0] == std::byte{'c'}) return Introduction::refused_multifd(kMagicBytes);
    if (greeting[0] != std::byte{'m'}) return {};
    if (greeting.size() < wanted) return Introduction::needs(wanted);
    return let_in ? Introduction::as(parser) : Introduction{Introduction::Kind::waits, 0, nullptr};
  }
  Introduction ask_again(Handoff&, uint32_t) noexcept override {
    return let_in ? Introduction::as(parser) : Introduction{Introduction::Kind::waits, 0, nullptr};
  }
  void channel_failed(const StreamError&) noexcept override {}
  [[nodiscard]] bool over() const noexcept override { return false; }
  KeepingParser parser;
  std::size_t wanted = kMagicBytes;
  bool let_in = true;
};

// A client on one side, the acceptor and one channel on the other, and the wire between them in pieces.
class TlsChannelTest : public testing::Test {
 protected:
  void SetUp() override {
    pki_.make({.common_name = "server", .file = "server"});
    pki_.make({.common_name = "source.example", .file = "client"});
    pki_.write("keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
  }

  void start(const std::string& creds = "x509:dir=", std::vector<std::string> authz = {},
             std::string priority = "NORMAL", std::string client_file = "client") {
    TlsCredsOptions options;
    ASSERT_EQ(parse_tls_creds(creds.find("dir=") + 4 == creds.size() ? creds + pki_.dir() : creds, options),
              "");
    std::string problem;
    std::vector<std::string> warnings;
    auto store = TlsCredentialStore::open(options, problem, warnings);
    ASSERT_NE(store, nullptr) << problem;
    ASSERT_EQ(authz_.set(authz), "");
    acceptor_ = std::make_unique<TlsAcceptor>(std::move(store), &authz_, 4, 10 * kSecond);
    const bool psk = options.kind == TlsCredsOptions::Kind::psk;
    client_ = std::make_unique<TlsClient>(pki_.dir(), client_file, priority,
                                          psk ? "qemu:00112233445566778899aabbccddeeff" : "");
    channel_ = acceptor_->accept(handoff_, 0, directory_);
    ASSERT_NE(channel_, nullptr);
  }

  // What the poll core would have been told to send.
  std::vector<std::byte> sent() {
    std::vector<std::byte> out;
    ConnectionCommand command;
    while (handoff_.take_command(command))
      out.insert(out.end(), command.bytes.begin(), command.bytes.begin() + command.length);
    return out;
  }

  // The wire: bytes for the channel, in pieces of at most `piece_max`. Returns the last status.
  ParseStatus deliver(Bytes bytes) {
    ParseStatus status = ParseStatus::need_more;
    if (parked_) {
      if (!channel_->ready()) return ParseStatus::parked;
      status = keep(channel_->parse({}), 0);
    }
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    while (!waiting_.empty() && status == ParseStatus::need_more) {
      const std::size_t n = std::min(waiting_.size(), 1 + random_() % piece_max_);
      // A copy of its own, so that a read beyond the piece is one that the address sanitizer sees.
      const std::vector<std::byte> piece(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(n));
      status = keep(channel_->parse(piece), n);
    }
    return status;
  }
  ParseStatus keep(const ParseResult& result, std::size_t given) {
    waiting_.erase(waiting_.begin(),
                   waiting_.begin() + static_cast<std::ptrdiff_t>(
                                          result.status == ParseStatus::need_more ? given : result.consumed));
    parked_ = result.status == ParseStatus::parked;
    return result.status;
  }

  // Both sides, until the client is done or somebody refuses.
  bool shake_hands(uint64_t wanted = 1) {
    bool done = client_->handshake({});
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < until) {
      const ParseStatus status = last_ = deliver(client_->take());
      if (status == ParseStatus::refused || status == ParseStatus::failed || client_->failed) return false;
      acceptor_->do_work(now_);
      const std::vector<std::byte> flight = sent();
      if (!flight.empty()) done = client_->handshake(flight) || done;
      if (done && acceptor_->handshakes() == wanted) return true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return false;
  }

  ParseStatus pump() {
    ParseStatus status = deliver(client_->take());
    for (int i = 0; i < 50 && status == ParseStatus::parked && directory_.parser.allowed; ++i) {
      acceptor_->do_work(now_);
      status = deliver({});
    }
    return status;
  }

  TestPki pki_;
  TlsAuthz authz_;
  Handoff handoff_{64};
  OneParser directory_;
  std::unique_ptr<TlsAcceptor> acceptor_;
  std::unique_ptr<TlsClient> client_;
  ChannelParser* channel_ = nullptr;
  std::vector<std::byte> waiting_;
  bool parked_ = false;
  std::size_t piece_max_ = 1448;
  uint64_t now_ = kSecond;
  ParseStatus last_ = ParseStatus::need_more;  // of shake_hands()
  std::mt19937 random_{5};
};

struct Mode {
  const char* name;
  const char* creds;
  const char* priority;
};
class EachTlsMode : public TlsChannelTest, public testing::WithParamInterface<Mode> {};
INSTANTIATE_TEST_SUITE_P(
    Modes, EachTlsMode,
    testing::Values(Mode{"x509", "x509:dir=", "NORMAL"}, Mode{"psk", "psk:dir=", "NORMAL"},
                    Mode{"tls12_gcm", "x509:dir=", "NORMAL:-VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM"},
                    Mode{"tls12_chacha", "x509:dir=", "NORMAL:-VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305"},
                    Mode{"aes128", "x509:dir=", "NORMAL:-CIPHER-ALL:+AES-128-GCM"},
                    Mode{"chacha", "x509:dir=", "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305"}),
    [](const auto& mode) { return std::string(mode.param.name); });

TEST_P(EachTlsMode, the_stream_comes_out_as_it_went_in) {
  start(GetParam().creds, {}, GetParam().priority);
  ASSERT_TRUE(shake_hands());
  std::string expected;
  for (const std::size_t bytes : {1UL, 2UL, 64UL, 1344UL, 4096UL, 4096UL, 16384UL, 5UL}) {
    std::string text(bytes, 'a');
    for (char& c : text) c = static_cast<char>('a' + random_() % 20);
    if (expected.empty()) text[0] = 'm';
    client_->write(bytes_of(text));
    expected += text;
  }
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, expected);
  EXPECT_TRUE(channel_->identified());
  // The return path.
  std::vector<std::byte> record;
  ASSERT_TRUE(acceptor_->seal(handoff_, bytes_of("pong"), record));
  EXPECT_LE(record.size(), ConnectionCommand::kBytesMax);
  EXPECT_EQ(client_->read(record), "pong");
}

TEST_P(EachTlsMode, bytes_that_come_one_by_one_give_the_same) {
  piece_max_ = 1;
  start(GetParam().creds, {}, GetParam().priority);
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("main"));
  client_->write(bytes_of(std::string(300, 'x')));
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "main" + std::string(300, 'x'));
}

TEST_F(TlsChannelTest, a_flight_that_finds_no_room_at_once_is_sent_in_the_end) {
  // A chain of this length is more than the command ring holds.
  pki_.write("server-cert.pem", [&] {
    std::ifstream own(pki_.path("server-cert.pem"));
    std::string chain{std::istreambuf_iterator<char>(own), {}};
    std::ifstream authority(pki_.path("ca-cert.pem"));
    const std::string more{std::istreambuf_iterator<char>(authority), {}};
    for (int i = 0; i < 15; ++i) chain += more;
    return chain;
  }());
  start("x509:dir=" + pki_.dir() + ",sanity-check=off");
  EXPECT_TRUE(shake_hands());
}

TEST_F(TlsChannelTest, key_updates_padding_and_empty_records_change_nothing) {
  start();
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("m1"));
  client_->update_key();
  client_->update_key();
  client_->write_padded(bytes_of("23"), 700);
  client_->update_key();
  client_->write(bytes_of("4"));
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "m1234");
  EXPECT_EQ(static_cast<TlsChannel*>(channel_)->counters().key_updates.read(), 3U);
  EXPECT_TRUE(sent().empty()) << "a source never reads its multifd connections";
}

TEST_F(TlsChannelTest, any_flipped_bit_ends_the_channel_and_nothing_of_its_record_is_delivered) {
  for (unsigned at = 0; at < 5 + 24 + 1 + 16; ++at) {
    directory_.parser.text.clear();
    waiting_.clear();
    parked_ = false;
    sent();
    start();
    ASSERT_TRUE(shake_hands());
    client_->write(bytes_of("main"));
    ASSERT_EQ(pump(), ParseStatus::need_more);
    client_->write(bytes_of("twenty-four bytes of it."));
    std::vector<std::byte> record = client_->take();
    ASSERT_EQ(record.size(), 5U + 24 + 1 + 16);
    record[at] ^= std::byte{0x10};
    const ParseStatus status = deliver(record);
    // A length that grew makes it wait for more; that is no record yet.
    EXPECT_TRUE(status == ParseStatus::failed || (at == 3 || at == 4)) << at;
    EXPECT_EQ(directory_.parser.text, "main") << at;
    acceptor_->forget(handoff_);
  }
}

TEST_F(TlsChannelTest, a_replayed_or_reordered_record_is_refused) {
  start();
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("main"));
  const std::vector<std::byte> first = client_->take();
  ASSERT_EQ(deliver(first), ParseStatus::need_more);
  EXPECT_EQ(deliver(first), ParseStatus::failed);
  EXPECT_STREQ(channel_->error().field, "TLS record: tag");
  EXPECT_EQ(directory_.parser.text, "main");
}

TEST_F(TlsChannelTest, a_parser_that_parks_in_a_record_goes_on_there) {
  start();
  ASSERT_TRUE(shake_hands());
  directory_.parser.allowed = false;
  client_->write(bytes_of("main12P34"));
  client_->write(bytes_of("56"));
  EXPECT_EQ(pump(), ParseStatus::parked);
  EXPECT_EQ(directory_.parser.text, "main12P");
  directory_.parser.allowed = true;
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "main12P3456");
}

TEST_F(TlsChannelTest, a_long_greeting_and_one_that_has_to_wait_are_replayed_whole) {
  start();
  ASSERT_TRUE(shake_hands());
  directory_.wanted = 10;
  directory_.let_in = false;
  client_->write(bytes_of("main89"));
  EXPECT_EQ(pump(), ParseStatus::need_more);
  client_->write(bytes_of("abcdefgh"));
  client_->write(bytes_of("ijk"));
  EXPECT_EQ(pump(), ParseStatus::parked);
  EXPECT_FALSE(channel_->identified());
  directory_.let_in = true;
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "main89abcdefghijk");
  EXPECT_TRUE(channel_->identified());
}

TEST_F(TlsChannelTest, the_staging_buffer_is_not_used_again_while_another_node_reads_it) {
  start();
  ASSERT_TRUE(shake_hands());
  directory_.parser.needed = 3;
  client_->write(bytes_of("main"));
  client_->write(bytes_of("more"));
  (void)deliver(client_->take());
  EXPECT_TRUE(parked_);
  EXPECT_EQ(directory_.parser.text, "main");
  directory_.parser.needed = ChannelParser::kNothingNeeded;
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "mainmore");
}

TEST_F(TlsChannelTest, close_notify_ends_the_stream_and_bytes_after_it_are_refused) {
  start();
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("main"));
  client_->bye();
  EXPECT_EQ(pump(), ParseStatus::need_more);
  EXPECT_EQ(directory_.parser.text, "main");
  EXPECT_FALSE(channel_->end_of_stream());
  EXPECT_EQ(deliver(bytes_of("x")), ParseStatus::failed);
}

TEST_F(TlsChannelTest, an_end_inside_a_record_is_an_error_and_between_records_none) {
  start();
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("main"));
  ASSERT_EQ(pump(), ParseStatus::need_more);
  EXPECT_FALSE(channel_->end_of_stream());
  client_->write(bytes_of("more"));
  std::vector<std::byte> record = client_->take();
  record.pop_back();
  ASSERT_EQ(deliver(record), ParseStatus::need_more);
  EXPECT_EQ(channel_->end_of_stream().error_class, ErrorClass::truncated);
}

TEST_F(TlsChannelTest, plaintext_that_is_no_channel_is_refused_alone) {
  start();
  ASSERT_TRUE(shake_hands());
  EXPECT_TRUE(channel_->may_be_multifd());
  client_->write(bytes_of("GET / HTTP/1.1"));
  EXPECT_EQ(pump(), ParseStatus::refused);
  EXPECT_FALSE(channel_->may_be_multifd());
}

TEST_F(TlsChannelTest, a_refused_multifd_channel_is_known_as_one) {
  start();
  ASSERT_TRUE(shake_hands());
  client_->write(bytes_of("channel of another guest"));
  EXPECT_EQ(pump(), ParseStatus::refused);
  EXPECT_TRUE(channel_->may_be_multifd());
}

TEST_F(TlsChannelTest, main_is_none_once_it_has_said_so) {
  start();
  ASSERT_TRUE(shake_hands());
  directory_.let_in = false;
  client_->write(bytes_of("main"));
  EXPECT_EQ(pump(), ParseStatus::parked);
  EXPECT_FALSE(channel_->may_be_multifd());
}

// ---- Who is let in ----

struct Refusal {
  const char* name;
  TestPki::Wish client;
  std::vector<std::string> authz;
  const char* why;
};
class EachRefusedClient : public TlsChannelTest, public testing::WithParamInterface<Refusal> {};
INSTANTIATE_TEST_SUITE_P(
    Clients, EachRefusedClient,
    testing::Values(
        Refusal{"without_a_certificate", {.common_name = "", .file = "none"}, {}, "no certificate"},
        Refusal{"of_a_foreign_authority",
                {.common_name = "source", .file = "stranger", .foreign = true},
                {},
                "certificate"},
        Refusal{"that_has_expired",
                {.common_name = "source", .file = "expired", .ends_in_s = -10},
                {},
                "expired"},
        Refusal{"that_is_not_valid_yet",
                {.common_name = "source", .file = "early", .begins_in_s = 3600},
                {},
                "not"},
        Refusal{"that_is_not_named",
                {.common_name = "other", .file = "other"},
                {"CN=source.example,C=GB"},
                "--tls-authz"},
        Refusal{"that_no_pattern_fits",
                {.common_name = "other", .file = "other"},
                {"*CN=source.*"},
                "--tls-authz"}),
    [](const auto& refusal) { return std::string(refusal.param.name); });

TEST_P(EachRefusedClient, is_reset_and_the_operator_told_why) {
  const Refusal& refusal = GetParam();
  if (!refusal.client.common_name.empty()) pki_.make(refusal.client);
  start("x509:dir=", refusal.authz, "NORMAL", refusal.client.file);
  // In TLS 1.3 the client is done before the server has looked at its certificate.
  EXPECT_FALSE(shake_hands());
  EXPECT_EQ(last_, ParseStatus::refused);
  const std::optional<std::string> told = acceptor_->take_refusal();
  ASSERT_TRUE(told);
  EXPECT_NE(told->find(refusal.why), std::string::npos) << *told;
  EXPECT_EQ(directory_.parser.text, "");
}

TEST_F(TlsChannelTest, a_revoked_client_is_refused) {
  pki_.revoke("client");
  start();
  EXPECT_FALSE(shake_hands());
  EXPECT_EQ(last_, ParseStatus::refused);
}

TEST_F(TlsChannelTest, a_named_client_and_one_that_a_pattern_fits_are_let_in) {
  start("x509:dir=", {"CN=somebody.else", "*CN=source.*"});
  EXPECT_TRUE(shake_hands());
  EXPECT_NE(acceptor_->description().find("CN=source.example"), std::string::npos)
      << acceptor_->description();
}

TEST_F(TlsChannelTest, verify_peer_off_lets_a_client_without_certificate_in) {
  start("x509:dir=" + pki_.dir() + ",verify-peer=off", {}, "NORMAL", "none");
  EXPECT_TRUE(shake_hands());
}

// GnuTLS has no name for most numbers.
TEST_F(TlsChannelTest, an_alert_of_any_number_refuses_whoever_sends_it) {
  TlsCredsOptions options;
  ASSERT_EQ(parse_tls_creds("x509:dir=" + pki_.dir(), options), "");
  std::string problem;
  const auto credentials = TlsCredentials::load(options, problem);
  ASSERT_NE(credentials, nullptr) << problem;
  for (unsigned number = 0; number < 256; ++number) {
    TlsServerSession session(credentials, nullptr);
    TlsClient client(pki_.dir(), "client", "NORMAL:-VERS-TLS1.3");
    (void)client.handshake({});
    ASSERT_EQ(session.handshake(client.take()), TlsServerSession::Progress::need_more) << number;
    const std::array<std::byte, 7> alert{std::byte{21},
                                         std::byte{3},
                                         std::byte{3},
                                         std::byte{0},
                                         std::byte{2},
                                         std::byte{2},
                                         static_cast<std::byte>(number)};
    ASSERT_EQ(session.handshake(alert), TlsServerSession::Progress::failed) << number;
    ASSERT_TRUE(session.problem().starts_with("the client says: ")) << session.problem();
    if (number == 1) {
      ASSERT_EQ(session.problem(), "the client says: alert 1");
    }
  }
}

TEST_F(TlsChannelTest, a_silent_peer_is_refused_after_its_time) {
  start();
  (void)client_->handshake({});
  std::vector<std::byte> hello = client_->take();
  hello.resize(hello.size() / 2);
  (void)deliver(hello);
  acceptor_->do_work(now_);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  acceptor_->do_work(now_);
  EXPECT_FALSE(acceptor_->take_refusal());
  acceptor_->do_work(now_ + 11 * kSecond);
  const std::optional<std::string> told = acceptor_->take_refusal();
  ASSERT_TRUE(told);
  EXPECT_NE(told->find("in time"), std::string::npos);
  ConnectionCommand command;
  ASSERT_TRUE(handoff_.take_command(command));
  EXPECT_EQ(command.kind, ConnectionCommand::Kind::reset);
}

TEST_F(TlsChannelTest, the_next_connection_is_served_with_keys_that_changed) {
  const std::string other = "qemu:ffeeddccbbaa99887766554433221100";
  const auto next = [&](const std::string& key) {
    client_ = std::make_unique<TlsClient>(pki_.dir(), "", "NORMAL", key);
    acceptor_->forget(handoff_);
    channel_ = acceptor_->accept(handoff_, 0, directory_);
    waiting_.clear();
    parked_ = false;
    sent();
    return shake_hands(acceptor_->handshakes() + 1);
  };
  start("psk:dir=");
  ASSERT_TRUE(shake_hands());
  EXPECT_FALSE(next(other)) << "a key that nobody has is refused";
  pki_.write("keys.psk", other + "\n");
  EXPECT_TRUE(next(other));
  EXPECT_EQ(acceptor_->reloads(), 1U);
  EXPECT_FALSE(acceptor_->take_warning());
  pki_.write("keys.psk", "qemu:broken\n");
  EXPECT_TRUE(next(other)) << "the old key stays";
  const std::optional<std::string> told = acceptor_->take_warning();
  ASSERT_TRUE(told);
  EXPECT_NE(told->find("keys.psk"), std::string::npos) << *told;
  EXPECT_EQ(acceptor_->reloads(), 1U);
}

TEST_F(TlsChannelTest, no_more_connections_than_allowed_are_taken) {
  start();
  std::vector<std::unique_ptr<Handoff>> others;
  for (int i = 0; i < 4; ++i) others.push_back(std::make_unique<Handoff>(8));
  for (int i = 0; i < 3; ++i)
    EXPECT_NE(acceptor_->accept(*others[static_cast<std::size_t>(i)], 0, directory_), nullptr);
  EXPECT_EQ(acceptor_->accept(*others[3], 0, directory_), nullptr);
  acceptor_->forget(*others[0]);
  EXPECT_NE(acceptor_->accept(*others[3], 0, directory_), nullptr);
}

}  // namespace
}  // namespace migrx
