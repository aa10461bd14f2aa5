#include "loader/app/serve/serve_options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>

#include "loader/app/reception.h"

namespace migrx {
namespace {

ServeOptions parsed(std::vector<std::string> words) {
  CLI::App app("", "migrx");
  ServeOptions options;
  add_serve_options(*app.add_subcommand("serve", ""), options);
  words.insert(words.begin(), "serve");
  std::reverse(words.begin(), words.end());
  app.parse(words);
  return options;
}
const std::vector<std::string> kUsual{"--port",  "net_tap0", "--address", "192.0.2.10/24,fd00::2/64",
                                      "--allow", "any"};
std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.begin(), kUsual.begin(), kUsual.end());
  return more;
}

// The host's firewall does not see these packets: nobody may be let in by forgetting an option.
TEST(ServeOptions, nobody_is_allowed_by_default) {
  EXPECT_THROW(parsed({"--port", "net_tap0", "--address", "192.0.2.10/24"}), CLI::ParseError);
}

TEST(ServeOptions, any_means_the_families_that_there_are) {
  EXPECT_EQ(allowed_networks(parsed(kUsual)), (std::vector<std::string>{"0.0.0.0/0", "::/0"}));
  EXPECT_EQ(allowed_networks(parsed({"--port", "p", "--address", "192.0.2.10/24", "--allow", "any"})),
            std::vector<std::string>{"0.0.0.0/0"});
  EXPECT_EQ(allowed_networks(parsed({"--port", "p", "--address", "fd00::2/64", "--allow", "any"})),
            std::vector<std::string>{"::/0"});
  EXPECT_EQ(allowed_networks(parsed({"--port", "p", "--address", "fd00::2/64", "--allow", "fd00::/64"})),
            std::vector<std::string>{"fd00::/64"});
}

TEST(ServeOptions, defaults_follow_the_number_of_sessions) {
  const ServeOptions options = parsed(with({"--sessions-max", "3"}));
  EXPECT_EQ(connections_of(options), 3 * places_for(8));
  EXPECT_EQ(private_ram_of(options), 3ULL << 30);
  EXPECT_EQ(connections_of(parsed(with({"--connections-max", "20"}))), 20U);
  EXPECT_EQ(check_serve_options(options), "");
}

TEST(ServeOptions, what_contradicts_itself_is_refused) {
  EXPECT_NE(check_serve_options(parsed(with({"--listen-range", "9-8"}))).find("--listen-range"),
            std::string::npos);
  EXPECT_NE(check_serve_options(parsed(with({"--connections-max", "5"}))).find("--connections-max 5"),
            std::string::npos);
  EXPECT_NE(check_serve_options(parsed(with({"--client-folder", "ram"}))).find("absolute"),
            std::string::npos);
  EXPECT_NE(check_serve_options(
                parsed({"--port", "net_tap0", "--address", "192.0.2.10/24", "--allow", "192.0.2.0"}))
                .find("--allow"),
            std::string::npos);
  EXPECT_THROW(parsed(with({"--sessions-max", "0"})), CLI::ParseError);
}

// Two who do not know of each other would take the same port.
TEST(ServeOptions, ports_of_destinations_are_nobody_elses) {
  EXPECT_NE(check_serve_options(parsed(with({"--serve-ports", "49200-49300"}))).find("in common"),
            std::string::npos);
  EXPECT_NE(check_serve_options(parsed(with({"--serve-ports", "49215"}))).find("in common"),
            std::string::npos);
  EXPECT_NE(check_serve_options(parsed(with({"--serve-ports", "9-8"}))).find("--serve-ports 9-8"),
            std::string::npos);
  EXPECT_EQ(check_serve_options(parsed(with({"--serve-ports", "49216-49300"}))), "");
  EXPECT_EQ(
      check_serve_options(parsed(with({"--serve-ports", "49152-49215", "--listen-range", "4444-4507"}))), "");
}

TEST(ServeOptions, tls_of_found_destinations_is_of_both_ends_and_of_no_others) {
  const std::vector<std::string> ports{"--serve-ports", "49152-49215", "--listen-range", "4444-4450"};
  const auto problem_of = [&](std::vector<std::string> more, bool found = true) {
    if (found) more.insert(more.begin(), ports.begin(), ports.end());
    return check_serve_options(parsed(with(more)));
  };
  const std::vector<std::string> both{"--tls-creds",
                                      "x509:dir=/etc/pki/qemu",
                                      "--handoff-tls-creds",
                                      "x509:dir=/etc/pki/qemu",
                                      "--handoff-tls-hostname",
                                      "host2"};
  EXPECT_EQ(problem_of(both), "");
  EXPECT_NE(problem_of(both, false).find("--serve-ports"), std::string::npos);
  EXPECT_NE(problem_of({both.begin() + 2, both.end()}).find("give --tls-creds, too"), std::string::npos);
  EXPECT_NE(problem_of({both.begin(), both.begin() + 4}).find("give --handoff-tls-hostname"),
            std::string::npos);
  EXPECT_NE(problem_of({"--tls-authz", "CN=x"}).find("needs --tls-creds"), std::string::npos);
  EXPECT_EQ(problem_of({both.begin(), both.begin() + 2}), "") << "a destination without tls-creds";
}

TEST(ServeOptions, whose_qemus_may_get_a_guest) {
  std::vector<uid_t> users;
  EXPECT_EQ(user_ids({}, users), "");
  EXPECT_NE(std::find(users.begin(), users.end(), 0U), users.end());
  EXPECT_EQ(user_ids({"root", "4711"}, users), "");
  EXPECT_EQ(users, (std::vector<uid_t>{0, 4711}));
  for (const char* const nobody : {"no such user", "", "-1", "4294967295", "12x"})
    EXPECT_NE(user_ids({nobody}, users), "") << nobody;
  EXPECT_NE(check_serve_options(parsed(with({"--serve-users", "root"}))).find("--serve-ports"),
            std::string::npos);
}

TEST(ServeOptions, a_file_may_have_them) {
  const std::string path = testing::TempDir() + "serve.conf";
  std::ofstream(path)
      << "port=[\"net_tap0,iface=mig0\"]\naddress=[\"192.0.2.10/24\"]\nallow=[\"192.0.2.0/24\"]\n"
         "sessions-max=5\nno-probe=true\n";
  const ServeOptions options = parsed({"--config", path});
  EXPECT_EQ(options.sessions_max, 5U);
  EXPECT_EQ(options.ports, std::vector<std::string>{"net_tap0,iface=mig0"});
  EXPECT_FALSE(options.probe);
  EXPECT_EQ(check_serve_options(options), "");
  EXPECT_THROW(parsed({"--config", path, "--sessions-max", "6"}), CLI::ParseError) << "in both places";
  std::ofstream(path) << "no-such-option=1\n";
  EXPECT_THROW(parsed(with({"--config", path})), CLI::ParseError);
  std::remove(path.c_str());
  EXPECT_THROW(parsed(with({"--config", path})), CLI::ParseError);
}

}  // namespace
}  // namespace migrx
