#include "loader/tls/credential_store.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/loader/tls/test_pki.h"

namespace migrx {
namespace {

class TlsCredentialsTest : public testing::Test {
 protected:
  // What is wrong with the folder; empty: nothing.
  std::string problem_of(const std::string& more = "", const std::string& kind = "x509") {
    TlsCredsOptions options;
    std::string problem = parse_tls_creds(kind + ":dir=" + pki_.dir() + more, options);
    if (problem.empty() && TlsCredentialStore::open(options, problem, warnings_) != nullptr) return "";
    return problem;
  }
  TestPki pki_;
  std::vector<std::string> warnings_;
};

TEST_F(TlsCredentialsTest, a_sound_folder_is_taken) {
  pki_.make({.common_name = "server", .file = "server"});
  EXPECT_EQ(problem_of(), "");
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TlsCredentialsTest, what_is_missing_is_named) {
  EXPECT_NE(problem_of().find("server-cert.pem"), std::string::npos);
  pki_.make({.common_name = "server", .file = "server"});
  std::filesystem::remove(pki_.path("server-key.pem"));
  EXPECT_NE(problem_of().find("server-key.pem"), std::string::npos);
  std::filesystem::remove(pki_.path("ca-cert.pem"));
  EXPECT_NE(problem_of().find("ca-cert.pem"), std::string::npos);
  EXPECT_NE(problem_of("", "psk").find("keys.psk"), std::string::npos);
}

TEST_F(TlsCredentialsTest, what_qemu_would_refuse_is_refused) {
  const struct {
    TestPki::Wish server;
    const char* why;
  } cases[] = {
      {{.common_name = "s", .file = "server", .ends_in_s = -10}, "expired"},
      {{.common_name = "s", .file = "server", .begins_in_s = 3600}, "not valid before"},
      {{.common_name = "s", .file = "server", .is_ca = true}, "authority"},
      {{.common_name = "s", .file = "server", .foreign = true}, "ca-cert.pem"},
      {{.common_name = "s", .file = "server", .purpose_client = 1}, "purpose"},
  };
  for (const auto& c : cases) {
    pki_.make(c.server);
    EXPECT_NE(problem_of().find(c.why), std::string::npos) << c.why << ": " << problem_of();
    EXPECT_EQ(problem_of(",sanity-check=off"), "") << c.why;
  }
}

TEST_F(TlsCredentialsTest, a_priority_without_a_cipher_that_is_read_here_is_refused) {
  pki_.make({.common_name = "server", .file = "server"});
  const auto refusal = [this](const std::string& priority) { return problem_of(",priority=" + priority); };
  EXPECT_NE(refusal("NORMAL:-CIPHER-ALL:+AES-256-CCM").find("none of the ciphers"), std::string::npos);
  EXPECT_EQ(refusal("NORMAL:-CIPHER-ALL:+AES-256-CCM:+AES-128-GCM"), "");
  EXPECT_NE(refusal("NORMAL:+NOTHING-LIKE-IT").find("at "), std::string::npos);
}

TEST_F(TlsCredentialsTest, numbered_pairs_are_read_up_to_the_first_gap) {
  pki_.make({.common_name = "a", .file = "server-0"});
  EXPECT_NE(problem_of(), "") << "server-0-cert.pem is not server-cert-0.pem";
  std::filesystem::rename(pki_.path("server-0-cert.pem"), pki_.path("server-cert-0.pem"));
  std::filesystem::rename(pki_.path("server-0-key.pem"), pki_.path("server-key-0.pem"));
  EXPECT_EQ(problem_of(), "");
}

TEST_F(TlsCredentialsTest, an_end_that_is_near_is_a_warning) {
  pki_.make({.common_name = "server", .file = "server", .begins_in_s = -86400, .ends_in_s = 3600});
  EXPECT_EQ(problem_of(), "");
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("renew"), std::string::npos);
}

TEST(TlsCreds, options_are_parsed_and_others_refused) {
  TlsCredsOptions o;
  EXPECT_EQ(
      parse_tls_creds("x509:dir=/etc/pki,verify-peer=off,priority=NORMAL:-VERS-TLS1.2,sanity-check=off", o),
      "");
  EXPECT_EQ(o.dir, "/etc/pki");
  EXPECT_FALSE(o.verify_peer);
  EXPECT_FALSE(o.sanity_check);
  EXPECT_EQ(o.priority, "NORMAL:-VERS-TLS1.2");
  EXPECT_EQ(parse_tls_creds("psk:dir=/etc/psk", o), "");
  EXPECT_EQ(o.kind, TlsCredsOptions::Kind::psk);
  for (const char* const text :
       {"anon:dir=/x", "x509", "x509:", "x509:dir=relative", "x509:dir=/x,verify-peer=maybe",
        "psk:dir=/x,verify-peer=on", "x509:dir=/x,colour=red"})
    EXPECT_NE(parse_tls_creds(text, o), "") << text;
}

TEST_F(TlsCredentialsTest, whoever_has_read_them_leaves_no_core_dump) {
  const pid_t child = ::fork();  // the flag stays
  if (child == 0) {
    (void)::prctl(PR_SET_DUMPABLE, 1UL, 0UL, 0UL, 0UL);
    TlsCredsOptions options;
    std::string problem;
    (void)TlsCredentials::load(options, problem);
    ::_exit(::prctl(PR_GET_DUMPABLE));
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(TlsCredentialsTest, a_client_needs_its_authority_and_may_have_a_pair) {
  const auto problem_of_client = [](const std::string& text) {
    TlsCredsOptions options;
    std::string problem = parse_tls_creds(text, options, TlsCredsOptions::Endpoint::client);
    if (problem.empty()) (void)TlsCredentials::load(options, problem);
    return problem;
  };
  const std::string x509 = "x509:dir=" + pki_.dir();
  EXPECT_EQ(problem_of_client(x509), "");
  pki_.make({.common_name = "c", .file = "client", .purpose_client = 1});
  EXPECT_EQ(problem_of_client(x509), "") << "the purpose that no server may have";
  std::filesystem::remove(pki_.path("client-cert.pem"));
  EXPECT_NE(problem_of_client(x509).find("client-cert.pem"), std::string::npos);
  std::filesystem::remove(pki_.path("ca-cert.pem"));
  EXPECT_NE(problem_of_client(x509).find("ca-cert.pem"), std::string::npos);
  pki_.write("keys.psk", "qemu:00\n");
  EXPECT_EQ(problem_of_client("psk:dir=" + pki_.dir()), "");
  EXPECT_NE(problem_of_client("psk:dir=" + pki_.dir() + ",username=me").find("username="), std::string::npos);
  TlsCredsOptions options;
  EXPECT_NE(parse_tls_creds("psk:dir=/x,username=me", options), "") << "a server has no name of its own";
}

TEST(TlsAuthzList, qemus_list_file_is_read_again_for_each_question) {
  TestPki folder;
  folder.write("authz.json", R"({"policy":"deny","rules":[
    {"match":"CN=bad*","policy":"deny","format":"glob"},
    {"match":"*CN=source?","policy":"allow","format":"glob"},
    {"match":"CN=exact","policy":"allow"}]})");
  TlsAuthz authz;
  ASSERT_EQ(authz.set({"listfile:" + folder.path("authz.json")}), "");
  EXPECT_TRUE(authz.allows("C=GB,CN=source1"));
  EXPECT_TRUE(authz.allows("CN=exact"));
  EXPECT_FALSE(authz.allows("CN=badCN=source1"));
  EXPECT_FALSE(authz.allows("CN=exactly"));
  folder.write("authz.json", R"({"policy":"allow","rules":[]})");
  EXPECT_TRUE(authz.allows("CN=exactly"));
  folder.write("authz.json", "no list");
  EXPECT_FALSE(authz.allows("CN=exact"));
  TlsAuthz other;
  EXPECT_NE(other.set({"listfile:" + folder.path("authz.json")}), "");
}

}  // namespace
}  // namespace migrx
