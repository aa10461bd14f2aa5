#include "loader/app/receive_options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace migrx {
namespace {

ReceiveOptions parse(std::vector<std::string> words) {
  CLI::App app;
  ReceiveOptions options;
  add_receive_options(app, options);
  std::reverse(words.begin(), words.end());
  app.parse(words);
  return options;
}

const std::vector<std::string> kLeast{"--port", "net_tap0,iface=mig0", "--address", "10.77.0.2/24",
                                      "--no-handoff"};

std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.begin(), kLeast.begin(), kLeast.end());
  return more;
}

TEST(ReceiveOptions, the_least_is_enough) {
  const ReceiveOptions options = parse(kLeast);
  EXPECT_EQ(check_receive_options(options), "");
  EXPECT_EQ(options.ports, std::vector<std::string>{"net_tap0,iface=mig0"});
  EXPECT_EQ(options.listen, 4444);
}

TEST(ReceiveOptions, every_port_needs_an_address) {
  EXPECT_NE(check_receive_options(parse(with({"--port", "0000:01:00.0"}))).find("every --port needs"),
            std::string::npos);
}

TEST(ReceiveOptions, the_guest_must_go_somewhere) {
  ReceiveOptions options = parse(kLeast);
  options.no_handoff = false;
  EXPECT_NE(check_receive_options(options).find("--handoff"), std::string::npos);
  EXPECT_THROW(parse(with({"--handoff", "unix:/x"})), CLI::Error);
}

TEST(ReceiveOptions, refused_capabilities_say_so) {
  EXPECT_NE(
      check_receive_options(parse(with({"--capability", "postcopy-ram"}))).find("turn it off at the source"),
      std::string::npos);
  EXPECT_NE(check_receive_options(parse(with({"--capability", "xbzlre"}))).find("unknown"),
            std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--capability", "xbzrle", "--capability", "auto-converge"}))),
            "");
}

TEST(ReceiveOptions, compression_needs_multifd) {
  EXPECT_NE(check_receive_options(parse(with({"--multifd-compression", "zlib"}))).find("--multifd-channels"),
            std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--multifd-compression", "zlib", "--multifd-channels", "4"}))),
            "");
}

// A check that nothing in the stream can answer would be no check.
TEST(ReceiveOptions, a_uuid_needs_a_stream_that_bears_one) {
  const std::string uuid = "00112233-4455-6677-8899-aabbccddeeff";
  EXPECT_NE(check_receive_options(parse(with({"--uuid", uuid}))).find("validate-uuid"), std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--uuid", uuid, "--multifd-channels", "4"}))), "");
  EXPECT_EQ(check_receive_options(parse(with({"--uuid", uuid, "--capability", "validate-uuid"}))), "");
}

}  // namespace
}  // namespace migrx
