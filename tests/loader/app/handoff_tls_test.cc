#include "loader/app/handoff_tls.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "loader/app/setup_error.h"
#include "tests/loader/tls/test_pki.h"

namespace migrx {
namespace {

JobOptions parsed(std::vector<std::string> words) {
  CLI::App app;
  JobOptions options;
  add_job_options(app, options);
  std::reverse(words.begin(), words.end());
  app.parse(words);
  return options;
}

JobOptions handed_off(const std::string& creds = "x509:dir=/etc/pki/qemu") {
  JobOptions options;
  options.handoff = "unix:/run/vm0.sock";
  options.handoff_tls_creds = creds;
  options.handoff_tls_hostname = "vm.example";
  return options;
}

void expect_says(const JobOptions& options, const std::string& words) {
  EXPECT_NE(check_handoff_tls(options).find(words), std::string::npos) << check_handoff_tls(options);
}

TEST(HandoffTls, it_is_as_the_sources_stream_is_unless_told_otherwise) {
  JobOptions options = handed_off();
  EXPECT_TRUE(handoff_is_tls(options, true));
  EXPECT_FALSE(handoff_is_tls(options, false));
  options.handoff_tls = "on";
  EXPECT_TRUE(handoff_is_tls(options, false));
  options.handoff_tls = "off";
  EXPECT_FALSE(handoff_is_tls(options, true));
  options.handoff_tls = "auto";
  options.handoff_tls_creds.reset();
  EXPECT_FALSE(handoff_is_tls(options, true)) << "a destination without tls-creds, as ever";
}

TEST(HandoffTls, a_name_is_asked_for_where_the_address_is_none) {
  JobOptions options = handed_off();
  EXPECT_EQ(check_handoff_tls(options), "");
  options.handoff_tls_hostname.reset();
  for (const char* const where :
       {"unix:/run/vm0.sock", "tcp:127.0.0.1:49152", "tcp:127.9.9.9:49152", "tcp:[::1]:49152"}) {
    options.handoff = where;
    expect_says(options, "give --handoff-tls-hostname");
  }
  for (const char* const where : {"tcp:192.0.2.7:49152", "tcp:[2001:db8::7]:49152"}) {
    options.handoff = where;
    EXPECT_EQ(check_handoff_tls(options), "");
  }
  options.handoff = "unix:/run/vm0.sock";
  options.handoff_tls_creds = "x509:dir=/etc/pki/qemu,verify-peer=off";
  EXPECT_EQ(check_handoff_tls(options), "");
  options.handoff_tls_creds = "psk:dir=/etc/pki/qemu-psk,username=migrx";
  EXPECT_EQ(check_handoff_tls(options), "");
}

TEST(HandoffTls, slips_are_named_with_the_option) {
  JobOptions options = handed_off("dir=/etc/pki/qemu");
  expect_says(options, "--handoff-tls-creds dir=/etc/pki/qemu: expected x509:dir=DIR");
  options = handed_off("x509:dir=pki");
  expect_says(options, "--handoff-tls-creds: dir= needs an absolute path");
  options = handed_off("x509:dir=/etc/pki,username=me");
  expect_says(options, "--handoff-tls-creds: unknown option 'username'");
  options = handed_off("psk:dir=/etc/pki");
  expect_says(options, "psk has none: leave it out");
  options = handed_off();
  options.handoff_tls_hostname = "";
  expect_says(options, "--handoff-tls-hostname is empty");
  options = handed_off();
  options.handoff.reset();
  expect_says(options, "it needs --handoff");
  options = handed_off();
  options.handoff_tls_creds.reset();
  expect_says(options, "it needs --handoff-tls-creds");
  options.handoff_tls_hostname.reset();
  options.handoff_tls = "on";
  expect_says(options, "give --handoff-tls-creds");
  options.handoff_tls = "off";
  EXPECT_EQ(check_handoff_tls(options), "");
}

TEST(HandoffTls, on_the_command_line_each_is_given_once_and_with_a_destination) {
  const std::vector<std::string> least{"--handoff", "unix:/run/a", "--handoff-tls-creds", "psk:dir=/a"};
  EXPECT_EQ(check_handoff_tls(parsed(least)), "");
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), least.begin(), least.end());
    return more;
  };
  EXPECT_THROW((void)parsed(with({"--handoff-tls-creds", "psk:dir=/b"})), CLI::ParseError);
  EXPECT_THROW((void)parsed(with({"--handoff-tls", "perhaps"})), CLI::ParseError);
  EXPECT_THROW((void)parsed({"--no-handoff", "--handoff-tls-creds", "psk:dir=/a"}), CLI::ParseError);
  EXPECT_THROW((void)parsed({"--no-handoff", "--handoff-tls", "on"}), CLI::ParseError);
}

TEST(HandoffTls, credentials_are_read_before_a_source_comes_and_what_is_wrong_names_the_file) {
  TestPki pki;
  JobOptions options = handed_off("x509:dir=" + pki.dir());
  Report report;
  EXPECT_NE(HandoffTls(options, true, report).security(), nullptr) << "without client-cert.pem none is shown";
  pki.make({.common_name = "migrx", .file = "client", .begins_in_s = -7200, .ends_in_s = -60});
  try {
    HandoffTls refused(options, true, report);
    ADD_FAILURE() << "an expired certificate is taken";
  } catch (const SetupError& problem) {
    const std::string text = problem.what();
    EXPECT_TRUE(text.starts_with("--handoff-tls-creds: ")) << text;
    EXPECT_NE(text.find("client-cert.pem: has expired"), std::string::npos) << text;
  }
  options = handed_off("x509:dir=" + pki.dir() + "/missing");
  EXPECT_THROW(HandoffTls(options, true, report), SetupError);
  pki.write("keys.psk", "qemu:0011\n");
  options = handed_off("psk:dir=" + pki.dir() + ",username=somebody");
  try {
    HandoffTls refused(options, true, report);
    ADD_FAILURE() << "a user without a key is taken";
  } catch (const SetupError& problem) {
    const std::string text = problem.what();
    EXPECT_NE(text.find("username= in --handoff-tls-creds"), std::string::npos) << text;
    EXPECT_EQ(text.find("0011"), std::string::npos) << "a secret: " << text;
  }
}

TEST(HandoffTls, credentials_that_are_not_used_are_told) {
  JobOptions options = handed_off("x509:dir=/nowhere");
  Report report;
  EXPECT_EQ(HandoffTls(options, false, report).security(), nullptr);
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_NE(report.warnings[0].find("--handoff-tls on"), std::string::npos) << report.warnings[0];
  options.handoff_tls = "off";
  Report quiet;
  EXPECT_EQ(HandoffTls(options, true, quiet).security(), nullptr);
  EXPECT_TRUE(quiet.warnings.empty()) << "it was asked for";
}

}  // namespace
}  // namespace migrx
