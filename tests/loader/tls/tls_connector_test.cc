#include "loader/tls/tls_connector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/loader/tls/test_pki.h"
#include "tests/loader/tls/tls_server.h"

namespace migrx {
namespace {

constexpr const char* kPskKey = "qemu:00112233445566778899aabbccddeeff";

Bytes spoken(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The hand-off's end of one connection, a QEMU's at the other, and the wire between them.
class TlsConnectorTest : public testing::Test {
 protected:
  using Phase = SecuredLink::Phase;

  void SetUp() override {
    pki_.make({.common_name = "destination.example", .file = "server"});
    pki_.make({.common_name = "migrx.example", .file = "client"});
    pki_.write("keys.psk", std::string(kPskKey) + "\n");
  }
  void start(const std::string& kind = "x509", const std::string& host = "destination.example",
             const std::string& more = "") {
    TlsCredsOptions options;
    ASSERT_EQ(parse_tls_creds(kind + ":dir=" + pki_.dir() + more, options, TlsCredsOptions::Endpoint::client,
                              "--handoff-tls-creds"),
              "");
    std::string problem;
    std::vector<std::string> warnings;
    auto store = TlsCredentialStore::open(options, problem, warnings);
    ASSERT_NE(store, nullptr) << problem;
    connector_ = std::make_unique<TlsConnector>(std::move(store), host, "--handoff-tls-hostname");
    link_ = connector_->connect();
  }
  void wait() const {
    for (int i = 0; i < 20'000 && link_->phase() == Phase::working; ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    ASSERT_NE(link_->phase(), Phase::working);
  }
  // Until one end is done or gives up. piece: bytes that come at a time.
  void shake_hands(TlsServer& server, std::size_t piece = 65536) {
    link_->go_on({});
    for (int turn = 0; turn < 10'000; ++turn) {
      wait();
      const std::vector<std::byte> flight = link_->take_output();
      if (link_->phase() == Phase::failed) return;
      server.take(flight);
      const std::vector<std::byte> answer = server.output();
      for (std::size_t at = 0; at < answer.size() && link_->phase() == Phase::wants_bytes; at += piece) {
        link_->go_on(Bytes{answer}.subspan(at, std::min(piece, answer.size() - at)));
        wait();
      }
      if (server.failed || (link_->phase() == Phase::open && server.open)) return;
    }
    FAIL() << "the handshake does not end";
  }
  std::string heard() {
    std::vector<std::byte> text;
    EXPECT_TRUE(link_->open(server_out_, text)) << link_->problem();
    server_out_.clear();
    return text_of(text);
  }
  void expect_both_ways(TlsServer& server) {
    ASSERT_EQ(link_->phase(), Phase::open) << link_->problem();
    ASSERT_TRUE(server.open);
    const std::string large(100'000, 'x');  // several records
    ASSERT_TRUE(link_->seal(spoken("device state")));
    ASSERT_TRUE(link_->seal(spoken(large)));
    server.take(link_->take_output());
    EXPECT_EQ(text_of(server.text), "device state" + large);
    server.write(spoken("PONG"));
    server_out_ = server.output();
    EXPECT_EQ(heard(), "PONG");
  }

  TestPki pki_;
  std::unique_ptr<TlsConnector> connector_;
  std::unique_ptr<SecuredLink> link_;
  std::vector<std::byte> server_out_;
};

TEST_F(TlsConnectorTest, a_destination_of_the_same_authority_and_the_right_name_hears_the_stream) {
  start();
  TlsServer server(pki_.dir());
  shake_hands(server);
  expect_both_ways(server);
  EXPECT_EQ(connector_->handshakes(), 1U);
  EXPECT_TRUE(connector_->description().starts_with("TLS1.3 AES-")) << connector_->description();
}

TEST_F(TlsConnectorTest, a_handshake_that_comes_byte_by_byte_is_the_same) {
  start();
  TlsServer server(pki_.dir());
  shake_hands(server, 1);
  expect_both_ways(server);
}

TEST_F(TlsConnectorTest, psk_needs_no_certificate_and_no_name) {
  start("psk", "");
  TlsServer server(pki_.dir(), "", kPskKey);
  shake_hands(server);
  expect_both_ways(server);
}

TEST_F(TlsConnectorTest, another_key_is_told_apart) {
  pki_.write("keys.psk", "qemu:ffeeddccbbaa99887766554433221100\n");
  start("psk", "");
  TlsServer server(pki_.dir(), "", kPskKey);
  shake_hands(server);
  EXPECT_FALSE(server.open);
}

// Nothing of the guest, nor our certificate, goes to whoever is not the destination.
TEST_F(TlsConnectorTest, another_name_is_refused_with_the_option_before_our_certificate_is_shown) {
  start("x509", "other.example");
  TlsServer server(pki_.dir());
  shake_hands(server);
  EXPECT_EQ(link_->phase(), Phase::failed);
  EXPECT_FALSE(server.open);
  EXPECT_NE(link_->problem().find("--handoff-tls-hostname"), std::string::npos) << link_->problem();
}

TEST_F(TlsConnectorTest, a_foreign_authoritys_and_an_expired_certificate_are_refused) {
  pki_.make({.common_name = "destination.example", .file = "foreign", .foreign = true});
  pki_.make({.common_name = "destination.example", .file = "old", .begins_in_s = -7200, .ends_in_s = -60});
  for (const char* const file : {"foreign", "old"}) {
    start();
    TlsServer server(pki_.dir(), file);
    shake_hands(server);
    EXPECT_EQ(link_->phase(), Phase::failed) << file;
    EXPECT_TRUE(link_->problem().starts_with("the server's certificate")) << link_->problem();
    EXPECT_FALSE(server.open);
  }
}

TEST_F(TlsConnectorTest, who_is_not_to_be_verified_may_have_any_name) {
  start("x509", "", ",verify-peer=off");
  TlsServer server(pki_.dir());
  shake_hands(server);
  expect_both_ways(server);
}

TEST_F(TlsConnectorTest, bytes_that_are_no_tls_end_it) {
  start();
  link_->go_on({});
  wait();
  (void)link_->take_output();
  link_->go_on(spoken("QEVM and more of a stream without TLS"));
  wait();
  EXPECT_EQ(link_->phase(), Phase::failed);
  EXPECT_NE(link_->problem(), "");
}

TEST_F(TlsConnectorTest, an_alert_without_a_name_ends_it_with_its_number) {
  start();
  link_->go_on({});
  wait();
  (void)link_->take_output();
  link_->go_on(spoken(std::string("\x15\x03\x03\x00\x02\x02\x01", 7)));
  wait();
  EXPECT_EQ(link_->phase(), Phase::failed);
  EXPECT_NE(link_->problem().find("alert 1"), std::string::npos) << link_->problem();
}

TEST_F(TlsConnectorTest, new_keys_of_the_destination_go_unnoticed_and_its_farewell_is_an_end) {
  start();
  TlsServer server(pki_.dir());
  shake_hands(server);
  server.update_key();
  server.write(spoken("SHUT"));
  server_out_ = server.output();
  EXPECT_EQ(heard(), "SHUT");
  server.bye();
  std::vector<std::byte> text;
  EXPECT_FALSE(link_->open(server.output(), text));
  EXPECT_EQ(link_->problem(), "");
}

TEST_F(TlsConnectorTest, a_damaged_record_is_a_problem) {
  start();
  TlsServer server(pki_.dir());
  shake_hands(server);
  server.write(spoken("SHUT 0"));
  server_out_ = server.output();
  server_out_.back() ^= std::byte{1};
  std::vector<std::byte> text;
  EXPECT_FALSE(link_->open(server_out_, text));
  EXPECT_NE(link_->problem(), "");
  EXPECT_TRUE(text.empty());
}

TEST_F(TlsConnectorTest, a_certificate_that_is_renewed_meanwhile_is_shown) {
  start();
  pki_.make({.common_name = "migrx.example", .file = "client"});
  TlsServer server(pki_.dir());
  shake_hands(server);
  expect_both_ways(server);
  EXPECT_EQ(connector_->reloads(), 1U);
  EXPECT_EQ(connector_->take_warning(), std::nullopt);
}

TEST_F(TlsConnectorTest, a_broken_renewal_keeps_the_old_certificate_and_warns) {
  start();
  pki_.write("client-cert.pem", "half a certificate\n");
  TlsServer server(pki_.dir());
  shake_hands(server);
  expect_both_ways(server);
  const std::optional<std::string> warning = connector_->take_warning();
  ASSERT_TRUE(warning);
  EXPECT_NE(warning->find("client-cert.pem"), std::string::npos) << *warning;
}

TEST_F(TlsConnectorTest, a_link_that_ends_while_its_handshake_is_worked_on_leaves_nothing_behind) {
  start();
  for (int i = 0; i < 50; ++i) {
    link_ = connector_->connect();
    link_->go_on({});
    link_.reset();
  }
  link_ = connector_->connect();
  TlsServer server(pki_.dir());
  shake_hands(server);
  expect_both_ways(server);
  link_.reset();
  connector_.reset();
}

}  // namespace
}  // namespace migrx
