#include "loader/app/receive_options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "dataplane/wire/address_text.h"
#include "loader/app/address_check.h"
#include "loader/app/doctor_command.h"
#include "loader/app/generate_command.h"
#include "loader/app/load_command.h"
#include "loader/app/plan_command.h"
#include "loader/app/receive_command.h"
#include "loader/app/serve/serve_command.h"
#include "loader/app/session_commands.h"
#include "loader/app/top_command.h"

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

TEST(ReceiveOptions, a_link_local_address_is_warned_of) {
  IpAddress address;
  ASSERT_TRUE(parse_ip_address("fe80::2", address));
  EXPECT_NE(address_warning(address).find("the source must add the name of its own interface"),
            std::string::npos);
  ASSERT_TRUE(parse_ip_address("fd00::2", address));
  EXPECT_EQ(address_warning(address), "");
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
  for (const char* const good : {"fd00::2/64", "fd00::/127", "fe80::2/64", "10.77.0.2/24,fd00::2/64"})
    EXPECT_EQ(with_address(good), "");
  for (const auto& [text, why] : {std::pair{"10.77.0.255/24", "broadcast"},
                                  {"10.77.0.0/24", "subnet itself"},
                                  {"224.0.0.5/24", "multicast"},
                                  {"127.0.0.1/8", "loopback"},
                                  {"0.0.0.0/0", "none"},
                                  {"255.255.255.255/32", "reserved"},
                                  {"10.77.0.2", "prefix length"},
                                  {"10.77.0.2/33", "prefix length"},
                                  {"host/24", "prefix length"},
                                  {"10.77.0.2/32", "subnet of one"},
                                  {"fd00::2/128", "subnet of one"},
                                  {"fd00::/64", "subnet itself"},
                                  {"ff02::1/64", "multicast"},
                                  {"::1/64", "loopback"},
                                  {"::/64", "means no host"},
                                  {"::10.77.0.2/96", "IPv4-compatible"},
                                  {"::ffff:10.77.0.2/96", "prefix length"},
                                  {"fd00::2", "prefix length"},
                                  {"fd00::2/129", "prefix length"},
                                  {"fe80::2%mig0/64", "prefix length"},
                                  {"[fd00::2]/64", "prefix length"},
                                  {"10.77.0.2/24,", "prefix length"},
                                  {"fd00::2/64,fd00:0::2/64", "twice"}})
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

TEST(ReceiveOptions, ipv6_slips_are_named) {
  ReceiveOptions options = parse(with({}));
  const auto said = [&](const char* what) {
    const std::string problem = check_receive_options(options);
    return problem.find(what) != std::string::npos ? std::string{} : "said: " + problem;
  };
  options.addresses = {"fd00::2/64"};
  EXPECT_EQ(check_receive_options(options), "");
  for (const char* const gateway : {"fd00::1", "fe80::1"}) {
    options.gateway = gateway;
    EXPECT_EQ(check_receive_options(options), "") << gateway;
  }
  for (const auto& [gateway, why] : {std::pair{"10.77.0.1", "a family that no --address has"},
                                     {"fd00:0:0:1::1", "subnet of no --address"},
                                     {"fd00::2", "own address"},
                                     {"ff02::2", "no host's"},
                                     {"fe80::1%eth0", "expected an address"},
                                     {"fd00::1,fd00::3", "give at most one gateway of each family"}}) {
    options.gateway = gateway;
    EXPECT_EQ(said(why), "") << gateway;
  }
  options.addresses = {"10.77.0.2/24,fd00::2/64"};
  options.gateway = "10.77.0.1,fe80::1";
  EXPECT_EQ(check_receive_options(options), "");
  options.gateway.reset();
  options.addresses = {"10.77.0.2/24"};
  options.allow = {"fd00::/64"};
  EXPECT_EQ(said("no --address is of that family"), "");
  options.allow.clear();
  options.source_nat = {"fd00::/64"};
  EXPECT_EQ(said("no --address is of that family"), "");
  options.source_nat.clear();
  options.addresses = {"10.77.0.2/32"};
  options.allow = {"10.77.0.0/24"};
  EXPECT_EQ(check_receive_options(options), "");
  options.addresses = {"fd00::2/64"};
  options.allow.clear();
  options.mtu = 1279;
  EXPECT_EQ(said("IPv6 needs 1280"), "");
}

TEST(ReceiveOptions, an_option_takes_one_word) {
  EXPECT_THROW((void)parse(with({"--capability", "xbzrle", "FILE"})), CLI::ParseError);
  EXPECT_EQ(parse(with({"--capability", "xbzrle", "--capability", "events"})).capabilities.size(), 2U);
}

// Of every command, whatever stands behind the option.
TEST(CommandLine, an_option_takes_one_word_in_every_command) {
  int status = 0;
  const auto words = [&status](void (*add)(CLI::App&, int&)) {
    CLI::App app;
    add(app, status);
    for (const CLI::App* const command : app.get_subcommands({}))
      for (const CLI::Option* const option : command->get_options()) {
        if (option->get_positional()) continue;
        EXPECT_TRUE(option->get_expected_max() <= 1 || !option->get_allow_extra_args())
            << command->get_name() << " " << option->get_name();
      }
  };
  for (const auto add :
       {add_receive_command, add_serve_command, add_list_command, add_cancel_command, add_load_command,
        add_generate_command, add_plan_command, add_doctor_command, add_top_command})
    words(add);
}

TEST(ReceiveOptions, the_guest_must_go_somewhere) {
  ReceiveOptions options = parse(kLeast);
  options.no_handoff = false;
  EXPECT_NE(check_receive_options(options).find("--handoff"), std::string::npos);
  EXPECT_THROW(parse(with({"--handoff", "unix:/x"})), CLI::Error);
}

TEST(ReceiveOptions, waiting_for_room_needs_a_daemon) {
  EXPECT_NE(check_receive_options(parse(with({"--wait"}))).find("--via"), std::string::npos);
}

TEST(ReceiveOptions, refused_capabilities_say_so) {
  EXPECT_NE(check_receive_options(parse(with({"--capability", "x-ignore-shared"})))
                .find("turn it off at the source"),
            std::string::npos);
  EXPECT_NE(check_receive_options(parse(with({"--capability", "xbzlre"}))).find("unknown"),
            std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--capability", "xbzrle", "--capability", "auto-converge"}))),
            "");
}

TEST(ReceiveOptions, a_capability_is_one_of_qemus) {
  EXPECT_EQ(check_capability("xbzrle"), "");
  EXPECT_NE(check_capability("xbzlre").find("is unknown"), std::string::npos);
  EXPECT_NE(check_capability("x-ignore-shared").find("turn it off at the source"), std::string::npos);
}

TEST(ReceiveOptions, compression_needs_multifd) {
  EXPECT_NE(check_receive_options(parse(with({"--multifd-compression", "zlib"}))).find("--multifd-channels"),
            std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--multifd-compression", "zlib", "--multifd-channels", "4"}))),
            "");
}

// A check that nothing in the stream can answer would be no check.
TEST(ReceiveOptions, one_that_would_change_nothing_is_refused) {
  EXPECT_NE(check_receive_options(parse(with({"--switchover-ack-legacy", "on"})))
                .find("--capability switchover-ack"),
            std::string::npos);
  EXPECT_EQ(
      check_receive_options(parse(with({"--switchover-ack-legacy", "on", "--capability", "switchover-ack"}))),
      "");
  EXPECT_NE(check_receive_options(parse(with({"--multifd-flush-after-each-section", "on"})))
                .find("--multifd-channels"),
            std::string::npos);
}

TEST(ReceiveOptions, a_uuid_needs_a_stream_that_bears_one) {
  const std::string uuid = "00112233-4455-6677-8899-aabbccddeeff";
  EXPECT_NE(check_receive_options(parse(with({"--uuid", uuid}))).find("validate-uuid"), std::string::npos);
  EXPECT_EQ(check_receive_options(parse(with({"--uuid", uuid, "--multifd-channels", "4"}))), "");
  EXPECT_EQ(check_receive_options(parse(with({"--uuid", uuid, "--capability", "validate-uuid"}))), "");
}

}  // namespace
}  // namespace migrx
