#include "loader/app/serve/intake.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

WaitingQemu qemu(uint32_t backlog, const char* ram = "pc.ram=fd:0,size=67108864") {
  WaitingQemu waiting{
      .listener = {55, 49153, backlog, "tcp:127.0.0.1:49153"}, .process = 1234, .memory = {}, .problem = {}};
  waiting.memory.ram = {ram};
  waiting.memory.files.emplace_back();
  return waiting;
}

TEST(ArgumentsFor, are_all_that_receive_would_have_been_told) {
  SessionArguments arguments;
  const auto error = arguments_for(qemu(1), {}, arguments);
  ASSERT_FALSE(error) << error->sentence;
  EXPECT_EQ(arguments.listen, 49153);
  EXPECT_TRUE(arguments.options.wait);
  EXPECT_EQ(arguments.options.handoff, "tcp:127.0.0.1:49153");
  EXPECT_EQ(arguments.options.destination_pid, 1234);
  EXPECT_EQ(arguments.options.multifd_channels, 0U);
  ASSERT_EQ(arguments.ram.size(), 1U);
  EXPECT_EQ(arguments.ram[0].number, 0U);
  EXPECT_EQ(arguments.ram[0].size, 67108864U);
}

TEST(ArgumentsFor, the_length_of_its_queue_tells_the_channels) {
  SessionArguments arguments;
  ASSERT_FALSE(arguments_for(qemu(8), {}, arguments));
  EXPECT_EQ(arguments.options.multifd_channels, 8U);
}

TEST(ArgumentsFor, with_tls_both_ends_are_encrypted) {
  const FoundTlsOptions tls{"x509:dir=/etc/pki/qemu", {"CN=source"}, "x509:dir=/etc/pki/qemu", "host2"};
  SessionArguments arguments;
  const auto error = arguments_for(qemu(2), tls, arguments);
  ASSERT_FALSE(error) << error->sentence;
  EXPECT_EQ(arguments.options.tls_creds, tls.creds);
  EXPECT_EQ(arguments.options.tls_authz, tls.authz);
  EXPECT_EQ(arguments.options.handoff_tls_creds, tls.handoff_creds);
  EXPECT_EQ(arguments.options.handoff_tls_hostname, "host2");
  EXPECT_EQ(arguments.options.handoff_tls, "auto");
}

TEST(ArgumentsFor, a_command_line_that_makes_no_sense_is_refused) {
  SessionArguments arguments;
  EXPECT_TRUE(arguments_for(qemu(1, "pc.ram=fd:0,size=lots"), {}, arguments));
  EXPECT_TRUE(arguments_for(qemu(1, "pc.ram=fd:1,size=64M"), {}, arguments));
}

}  // namespace
}  // namespace migrx
