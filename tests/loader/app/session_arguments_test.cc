#include "loader/app/session_arguments.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "loader/app/receive_via.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

ControlPeer user(uid_t uid) {
  ControlPeer peer;
  peer.uid = uid;
  peer.gid = uid;
  return peer;
}

class SessionArgumentsTest : public ::testing::Test {
 protected:
  // Empty: `out_` has it.
  std::string parse(const std::string& json, std::size_t descriptors = 0, uid_t uid = 0) {
    const auto error = parse_session_arguments(Json::parse(json), descriptors, user(uid), out_);
    class_ = error ? error->error_class : "";
    return error ? error->sentence : "";
  }
  SessionArguments out_;
  std::string class_;
};

TEST_F(SessionArgumentsTest, values_of_every_kind_are_read_as_on_the_command_line) {
  EXPECT_EQ(parse(R"({"ram": ["mem=/dev/shm/a,size=64M", "vram=/dev/shm/b"], "multifd-channels": 8,
                      "multifd-compression": "zstd", "capability": "switchover-ack", "stall-timeout": 2.5,
                      "private-ram-max": "2G", "no-handoff": true, "unlink": false, "listen": "49152",
                      "multifd-flush-after-each-section": true, "switchover-ack-legacy": "off",
                      "allow": ["192.0.2.0/24", "2001:db8::/32"]})"),
            "");
  ASSERT_EQ(out_.ram.size(), 2U);
  EXPECT_EQ(out_.ram[0].size, 64U << 20);
  EXPECT_EQ(out_.options.multifd_channels, 8U);
  EXPECT_EQ(out_.options.multifd_compression, "zstd");
  EXPECT_EQ(out_.options.capabilities, std::vector<std::string>{"switchover-ack"});
  EXPECT_EQ(out_.options.stall_timeout_s, 2.5);
  EXPECT_EQ(out_.options.private_ram_max, 2ULL << 30);
  EXPECT_TRUE(out_.options.no_handoff);
  EXPECT_FALSE(out_.options.unlink);
  EXPECT_EQ(out_.listen, 49152);
  EXPECT_EQ(out_.options.multifd_flush_after_each_section, true);
  EXPECT_EQ(out_.options.switchover_ack_legacy, false);
  EXPECT_EQ(out_.options.allow.size(), 2U);
}

TEST_F(SessionArgumentsTest, without_a_port_one_is_to_be_chosen) {
  EXPECT_EQ(parse(R"({"no-handoff": true})"), "");
  EXPECT_FALSE(out_.listen);
  EXPECT_NE(parse(R"({"no-handoff": true, "listen": 0})").find("cannot connect"), std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "listen": 70000})"), "");
}

TEST_F(SessionArgumentsTest, complaints_are_the_command_lines) {
  EXPECT_NE(parse(R"({})").find("say where the guest goes"), std::string::npos);
  EXPECT_EQ(class_, control_class::kArguments);
  EXPECT_NE(parse(R"({"no-handoff": true, "multifd-channels": 300})").find("--multifd-channels"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "capability": ["x-ignore-shared"]})").find("not supported"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "ram": ["mem=relative"]})").find("must begin with /"),
            std::string::npos);
  EXPECT_NE(parse(R"({"handoff": "unix:/run/a.sock", "no-handoff": true})"), "");
  EXPECT_NE(parse(R"({"no-handoff": true, "tls-authz": "CN=x"})").find("needs --tls-creds"),
            std::string::npos);
}

TEST_F(SessionArgumentsTest, what_belongs_to_the_host_or_to_nobody_is_refused_by_name) {
  for (const char* const name : {"port", "address", "mtu", "pool-mbufs", "eal", "poll-cores", "dump-blocks",
                                 "metrics", "telemetry", "no-supervisor", "linger", "runtime-dir"}) {
    EXPECT_NE(parse(Json{{"no-handoff", true}, {name, "1"}}.dump())
                  .find("\"" + std::string(name) + "\" belongs to"),
              std::string::npos)
        << name;
  }
  for (const char* const name :
       {"report", "quiet", "ready-fd", "via", "help", "no-such", "", "-ram", "--ram", "ram=x"})
    EXPECT_NE(parse(Json{{"no-handoff", true}, {name, "1"}}.dump()).find("there is no argument"),
              std::string::npos)
        << name;
}

// Nobody could say to a daemon that the secondary is to take over.
TEST_F(SessionArgumentsTest, colo_is_left_to_a_process_of_its_own) {
  EXPECT_NE(parse(R"({"ram": ["mem=/dev/shm/a"], "handoff": "unix:/run/a", "capability": ["x-colo"]})")
                .find("migrx receive with a port of its own"),
            std::string::npos);
  EXPECT_EQ(class_, "InvalidArguments");
}

TEST_F(SessionArgumentsTest, values_of_another_type_are_refused) {
  const auto with = [&](const std::string& member) {
    return parse(R"({"no-handoff": true, )" + member + "}");
  };
  EXPECT_NE(with(R"("ram": {"mem": "/dev/shm/a"})"), "");
  EXPECT_NE(with(R"("ram": [["mem=/dev/shm/a"]])"), "");
  EXPECT_NE(with(R"("ram": null)"), "");
  EXPECT_NE(with(R"("ram": [true])"), "");
  EXPECT_NE(with(R"("uuid": ["a", "b"])").find("one value"), std::string::npos);
  EXPECT_NE(with(R"("uuid": "")").find("is empty"), std::string::npos);
  EXPECT_NE(with(R"("qmp": "unix:/run/a\u0000b")").find("control characters"), std::string::npos);
  EXPECT_NE(with(R"("qmp": "unix:/run/a\nb")").find("control characters"), std::string::npos);
  EXPECT_NE(with(R"("unlink": "yes")").find("true or false"), std::string::npos);
  EXPECT_NE(with(R"("unlink": 1)").find("true or false"), std::string::npos);
  EXPECT_NE(with(R"("multifd-channels": true)"), "");
  EXPECT_NE(with(R"("multifd-channels": 1.5)"), "");
  EXPECT_NE(with(R"("multifd-channels": -1)"), "");
  EXPECT_NE(with(R"("stall-timeout": 1e300)"), "");
  EXPECT_EQ(with(R"("ram": [])"), "");
}

// A value is one word, whatever it looks like.
TEST_F(SessionArgumentsTest, no_value_becomes_another_option) {
  EXPECT_NE(parse(R"({"no-handoff": true, "uuid": "--port"})"), "");
  EXPECT_NE(parse(R"({"no-handoff": true, "capability": ["--eal=-d/tmp/x.so", "--"]})"), "");
  EXPECT_TRUE(out_.options.eal.empty());
  EXPECT_EQ(parse(R"({"no-handoff": true, "ram": ["mem=/dev/shm/a b --eal=x"]})"), "");
  EXPECT_EQ(out_.ram[0].path, "/dev/shm/a b --eal=x");
  EXPECT_TRUE(out_.options.eal.empty());
}

TEST_F(SessionArgumentsTest, each_descriptor_is_named_once) {
  EXPECT_EQ(parse(R"({"no-handoff": true, "ram": ["mem=fd:1,size=64M", "vram=fd:0"]})", 2), "");
  EXPECT_EQ(out_.ram[0].number, 1U);
  EXPECT_NE(parse(R"({"no-handoff": true, "ram": ["mem=fd:0", "vram=fd:0"]})", 1).find("another one has"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "ram": ["mem=fd:0"]})", 2).find("no --ram names fd:1"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "ram": ["mem=fd:2"]})", 2).find("fd:0 to fd:1"), std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "ram": ["mem=fd:0"]})").find("no descriptor came"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true})", 1).find("no --ram names fd:0"), std::string::npos);
}

TEST_F(SessionArgumentsTest, what_names_something_of_the_hosts_is_roots) {
  for (const char* const member :
       {R"("no-memory-check": true)", R"("memory-cgroup": "/sys/fs/cgroup/system.slice")",
        R"("tls-creds": "x509:dir=/etc/pki")", R"("ram": ["mem=/dev/shm/a,owner=0"])",
        R"("ram": ["mem=/dev/shm/a,in-use=allow"])"}) {
    const std::string json = R"({"no-handoff": true, )" + std::string(member) + "}";
    EXPECT_NE(parse(json, 0, 65534).find("only root may give"), std::string::npos) << member;
    EXPECT_EQ(class_, control_class::kNotPermitted);
    EXPECT_EQ(parse(json), "") << member;
  }
  EXPECT_EQ(parse(R"({"no-handoff": true, "ram": ["mem=/dev/shm/a,mode=0660"]})", 0, 65534), "");
}

TEST_F(SessionArgumentsTest, the_hand_offs_credentials_are_roots_as_the_sources_are) {
  const std::string json = R"({"handoff": "unix:/run/a.sock", "handoff-tls-creds": "x509:dir=/etc/pki", )"
                           R"("handoff-tls-hostname": "vm.example", "handoff-tls": "on"})";
  EXPECT_NE(parse(json, 0, 65534).find("only root may give \"handoff-tls-creds\""), std::string::npos);
  EXPECT_EQ(parse(json), "");
  EXPECT_EQ(out_.options.handoff_tls_creds, "x509:dir=/etc/pki");
  EXPECT_NE(parse(R"({"handoff": "unix:/run/a.sock", "handoff-tls-creds": ["psk:dir=/a", "psk:dir=/b"]})")
                .find("takes one value"),
            std::string::npos);
  EXPECT_NE(parse(R"({"no-handoff": true, "handoff-tls-creds": "psk:dir=/a"})"), "");
}

// ---- Files ----

TEST_F(SessionArgumentsTest, descriptors_and_paths_become_files_that_are_held) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::string folder = "/dev/shm/migrx-session-arguments-" + std::to_string(::getpid());
  std::filesystem::create_directories(folder);
  ASSERT_EQ(::chown(folder.c_str(), 65534, 65534), 0);
  const ClientFiles files({folder});
  const auto came = [] {
    std::vector<Descriptor> list;
    list.emplace_back(::memfd_create("a", MFD_CLOEXEC));
    return list;
  };
  const std::string both =
      R"({"no-handoff": true, "ram": ["mem=)" + folder + R"(/new,size=1M", "vram=fd:0,size=1M"]})";
  ASSERT_EQ(parse(both, 1, 65534), "");
  EXPECT_FALSE(open_session_files(came(), user(65534), files, out_));
  ASSERT_EQ(out_.files.size(), 2U);
  for (const RamSpec& spec : out_.ram) {
    std::string problem;
    const auto memory = GuestMemory::open(spec, problem);
    ASSERT_NE(memory, nullptr) << problem;
    EXPECT_EQ(memory->length(), 1U << 20);
  }
  EXPECT_TRUE(std::filesystem::exists(folder + "/new"));
  files.remove(user(65534), out_.files[0]);
  EXPECT_FALSE(std::filesystem::exists(folder + "/new"));
  // One is refused: what was made for the other goes.
  ASSERT_EQ(parse(R"({"no-handoff": true, "ram": ["mem=)" + folder + R"(/new", "x=/dev/shm/elsewhere"]})", 0,
                  65534),
            "");
  const auto error = open_session_files({}, user(65534), files, out_);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->error_class, control_class::kNotPermitted);
  EXPECT_NE(error->sentence.find("may not name anything there"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder + "/new"));
  // Root's paths are opened by GuestMemory.
  ASSERT_EQ(parse(R"({"no-handoff": true, "ram": ["x=/dev/shm/elsewhere"]})"), "");
  EXPECT_FALSE(open_session_files({}, user(0), files, out_));
  EXPECT_FALSE(out_.ram[0].given);
  std::filesystem::remove_all(folder);
}

// ---- From the command line ----

class ViaArgumentsTest : public ::testing::Test {
 protected:
  ViaArgumentsTest() {
    add_receive_options(app_, options_);
    add_via_option(app_, socket_);
  }
  std::string arguments(const std::string& line) {
    app_.parse("--via /run/migrx/control " + line);
    return session_arguments_of(app_, json_, files_);
  }
  ReceiveOptions options_;
  std::string socket_;
  CLI::App app_;
  Json json_;
  std::vector<int> files_;
};

TEST_F(ViaArgumentsTest, every_option_of_receive_has_an_owner) {
  for (const CLI::Option* const option : app_.get_options()) {
    const std::string name = option->get_lnames().front();
    if (name != "help") {
      EXPECT_TRUE(owner_of_option(name)) << name;
    }
  }
}

TEST_F(ViaArgumentsTest, the_schema_has_what_a_request_may_have) {
  std::ifstream file(MIGRX_SOURCE "/docs/control.schema.json");
  const Json properties = Json::parse(file).at("$defs").at("session-add-arguments").at("properties");
  for (const CLI::Option* const option : app_.get_options()) {
    const std::string& name = option->get_lnames().front();
    const auto owner = owner_of_option(name);
    EXPECT_EQ(properties.contains(name), owner == OptionOwner::session || owner == OptionOwner::root) << name;
  }
  for (const auto& [name, value] : properties.items()) EXPECT_TRUE(owner_of_option(name)) << name;
}

TEST_F(ViaArgumentsTest, what_was_given_comes_back_the_same) {
  ASSERT_EQ(
      arguments("--ram mem=/dev/shm/a,size=1G --ram vram=/dev/shm/b --multifd-channels 4 --capability xbzrle "
                "--stall-timeout 5 --private-ram-max 2G --no-handoff --report /tmp/r.json --quiet "
                "--multifd-flush-after-each-section on --allow 192.0.2.0/24 --unlink=false"),
      "");
  EXPECT_EQ(json_["unlink"], false);
  EXPECT_FALSE(json_.contains("report"));
  EXPECT_FALSE(json_.contains("quiet"));
  EXPECT_FALSE(json_.contains("via"));
  EXPECT_FALSE(json_.contains("listen"));  // was not given
  SessionArguments out;
  const auto error = parse_session_arguments(json_, 0, user(0), out);
  ASSERT_FALSE(error) << error->sentence;
  EXPECT_EQ(out.options.ram, options_.ram);
  EXPECT_EQ(out.options.multifd_channels, 4U);
  EXPECT_EQ(out.options.capabilities, options_.capabilities);
  EXPECT_EQ(out.options.stall_timeout_s, 5);
  EXPECT_EQ(out.options.private_ram_max, 2ULL << 30);
  EXPECT_TRUE(out.options.no_handoff);
  EXPECT_EQ(out.options.multifd_flush_after_each_section, true);
  EXPECT_EQ(out.options.allow, options_.allow);
}

TEST_F(ViaArgumentsTest, options_of_a_host_are_refused_by_name) {
  EXPECT_NE(arguments("--no-handoff --mtu 9000").find("--mtu belongs to the host"), std::string::npos);
  EXPECT_NE(arguments("--no-handoff --no-probe").find("--no-probe belongs to the host"), std::string::npos);
  EXPECT_NE(arguments("--no-handoff --dump-blocks /tmp/x").find("--dump-blocks belongs"), std::string::npos);
}

TEST_F(ViaArgumentsTest, descriptors_of_this_process_are_sent) {
  const int fd = ::memfd_create("a", MFD_CLOEXEC);
  ASSERT_EQ(arguments("--no-handoff --ram mem=fd:" + std::to_string(fd) + ",size=1M --ram x=/dev/shm/y"), "");
  EXPECT_EQ(json_["ram"], Json::parse(R"(["mem=fd:0,size=1M", "x=/dev/shm/y"])"));
  EXPECT_EQ(files_, std::vector<int>{fd});
  ::close(fd);
  EXPECT_NE(arguments("--no-handoff --ram mem=fd:" + std::to_string(fd)).find("no such descriptor"),
            std::string::npos);
}

TEST(ViaOption, without_it_a_port_is_required) {
  ReceiveOptions options;
  std::string socket;
  CLI::App app;
  add_receive_options(app, options);
  add_via_option(app, socket);
  EXPECT_THROW(app.parse("--no-handoff"), CLI::RequiredError);
}

}  // namespace
}  // namespace migrx
