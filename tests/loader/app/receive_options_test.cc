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

TEST(ReceiveOptions, addresses_that_no_host_has_are_refused) {
  const auto with_address = [](const std::string& text) {
    ReceiveOptions options = parse(with({}));
    options.addresses = {text};
    return check_receive_options(options);
  };
  EXPECT_EQ(with_address("10.77.0.2/24"), "");
  EXPECT_EQ(with_address("10.77.0.2/31"), "");
  EXPECT_EQ(with_address("10.77.0.2/32"), "");
  for (const auto& [text, why] : {std::pair{"10.77.0.255/24", "broadcast"},
                                  {"10.77.0.0/24", "subnet itself"},
                                  {"224.0.0.5/24", "multicast"},
                                  {"127.0.0.1/8", "loopback"},
                                  {"0.0.0.0/0", "none"},
                                  {"255.255.255.255/32", "reserved"},
                                  {"10.77.0.2", "prefix length"},
                                  {"10.77.0.2/33", "prefix length"},
                                  {"host/24", "prefix length"}})
    EXPECT_NE(with_address(text).find(why), std::string::npos) << text << ": " << with_address(text);
}

TEST(ReceiveOptions, a_gateway_is_in_a_ports_subnet_and_listen_is_a_port) {
  ReceiveOptions options = parse(with({}));
  options.addresses = {"10.77.0.2/24"};
  options.gateway = "10.77.0.1";
  EXPECT_EQ(check_receive_options(options), "");
  options.gateway = "10.78.0.1";
  EXPECT_NE(check_receive_options(options).find("subnet of no --address"), std::string::npos);
  options.gateway = "10.77.0.2";
  EXPECT_NE(check_receive_options(options).find("own address"), std::string::npos);
  options.gateway.reset();
  options.allow = {"10.77.0.0"};
  EXPECT_NE(check_receive_options(options).find("--allow"), std::string::npos);
  options.allow.clear();
  options.listen = 0;
  EXPECT_NE(check_receive_options(options).find("--listen 0"), std::string::npos);
}

TEST(ReceiveOptions, an_option_takes_one_word) {
  EXPECT_THROW((void)parse(with({"--capability", "xbzrle", "FILE"})), CLI::ParseError);
  EXPECT_EQ(parse(with({"--capability", "xbzrle", "--capability", "events"})).capabilities.size(), 2U);
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
