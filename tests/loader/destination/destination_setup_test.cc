// A destination played by the test: answers by command name.
#include "loader/destination/destination_setup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace migrx {
namespace {

class PlayedQemu final : public QmpCommands {
 public:
  std::string command(const std::string& name, const std::string& arguments, std::string& result) override {
    said.push_back(name + (arguments.empty() ? "" : " " + arguments));
    // qom-get of one property may have an answer of its own: "qom-get share".
    const std::size_t property = arguments.rfind(": \"");
    const std::string last =
        property == std::string::npos ? "" : arguments.substr(property + 3, arguments.size() - property - 5);
    auto found =
        answers.find(name + " " + last);  // or of one command line: "human-monitor-command info mtree"
    if (found == answers.end()) found = answers.find(name);
    if (found == answers.end()) return name + ": refused";
    result = found->second;
    return {};
  }
  const std::string& version() const noexcept override { return version_; }
  [[nodiscard]] bool was_told(const std::string& words) const {
    for (const std::string& line : said)
      if (line.find(words) != std::string::npos) return true;
    return false;
  }

  std::optional<bool> started_stopped() const override { return stopped; }
  std::optional<pid_t> process() const override { return ::getpid(); }

  std::optional<bool> stopped;
  std::map<std::string, std::string> answers;
  std::vector<std::string> said;
  std::string version_ = "10.0.2";
};

class DestinationSetupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_GE(fd, 0);
    ::close(fd);
    qemu_.answers = {
        {"query-status", R"({"status": "inmigrate", "running": false})"},
        {"query-migrate", "{}"},
        {"query-migrate-parameters", R"({"tls-creds": "", "max-bandwidth": 1})"},
        {"query-memdev", R"([{"id": "mem", "size": 4096, "share": true, "host-nodes": []}])"},
        {"qom-get", qmp_quote(path_)},
        {"human-monitor-command",
         R"("memory-region: a\r\n  1000-8fff (prio 0, i/o): a\r\n    3000-3fff (prio 0, ram): mem\r\n")"},
        {"query-migrate-capabilities",
         R"([{"capability": "multifd", "state": true}, {"capability": "xbzrle", "state": true}])"},
        {"migrate-set-capabilities", "{}"},
        {"migrate-incoming", "{}"}};
    blocks_ = {{"mem", path_, 4096, 0, {}}};
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  // Both halves, as receive calls them.
  DestinationSetup set_up(SourceCapabilities source = {}, HandoffForm form = HandoffForm::x_ignore_shared,
                          bool tls = false) {
    const std::size_t before = qemu_.said.size();
    DestinationSetup setup = inspect_destination(qemu_, blocks_, form, tls);
    for (std::size_t i = before; i < qemu_.said.size(); ++i)
      EXPECT_FALSE(qemu_.said[i].starts_with("migrate-")) << "inspection changes nothing";
    if (!setup.problem.empty()) return setup;
    DestinationSetup armed = arm_destination(qemu_, "unix:/run/vm0.sock", source, form, {});
    setup.problem = armed.problem;
    setup.warnings.insert(setup.warnings.end(), armed.warnings.begin(), armed.warnings.end());
    return setup;
  }
  // The setup is refused with these words, and the destination was never told to wait.
  void expect_refused(const std::string& words) {
    const DestinationSetup setup = set_up();
    EXPECT_NE(setup.problem.find(words), std::string::npos) << setup.problem;
    EXPECT_FALSE(qemu_.was_told("migrate-incoming"));
    EXPECT_FALSE(qemu_.was_told("migrate-set-capabilities"));
  }

  const std::string path_ = "/dev/shm/migrx-destination-setup-test-" + std::to_string(::getpid());
  PlayedQemu qemu_;
  std::vector<SetupBlock> blocks_;
};

TEST_F(DestinationSetupTest, sets_capabilities_and_begins_to_wait) {
  const DestinationSetup setup = set_up();
  EXPECT_EQ(setup.problem, "");
  EXPECT_EQ(setup.version, "10.0.2");
  EXPECT_EQ(setup.addresses.at("mem"), 0x2000U);
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "x-ignore-shared", "state": true})"));
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "multifd", "state": false})"));
  EXPECT_FALSE(qemu_.was_told("xbzrle"));
  EXPECT_FALSE(qemu_.was_told("switchover-ack"));
  EXPECT_EQ(qemu_.said.back(), R"(migrate-incoming {"uri": "unix:/run/vm0.sock"})");
  ASSERT_EQ(setup.warnings.size(), 1U);
  EXPECT_NE(setup.warnings[0].find("multifd"), std::string::npos);
}

TEST_F(DestinationSetupTest,
       in_the_plain_form_nothing_is_turned_on_and_other_shared_memory_is_none_of_our_business) {
  qemu_.answers["query-memdev"] =
      R"([{"id": "mem", "size": 4096, "share": true}, {"id": "dimm", "size": 4096, "share": true}])";
  const DestinationSetup setup = set_up({}, HandoffForm::plain);
  EXPECT_EQ(setup.problem, "");
  EXPECT_TRUE(setup.addresses.empty());
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "x-ignore-shared", "state": false})"));
  EXPECT_FALSE(qemu_.was_told("info mtree"));
  EXPECT_EQ(qemu_.said.back(), R"(migrate-incoming {"uri": "unix:/run/vm0.sock"})");
}

TEST_F(DestinationSetupTest, postcopy_is_turned_on_as_at_the_source_and_otherwise_left_alone) {
  EXPECT_EQ(set_up({.postcopy_ram = true, .postcopy_preempt = true}, HandoffForm::plain).problem, "");
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "postcopy-ram", "state": true})"));
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "postcopy-preempt", "state": true})"));
  qemu_.said.clear();
  qemu_.answers["query-migrate-capabilities"] = R"([{"capability": "postcopy-ram", "state": true}])";
  EXPECT_EQ(set_up({}, HandoffForm::plain).problem, "");
  EXPECT_FALSE(qemu_.was_told("postcopy"));
  // x-ignore-shared excludes it.
  EXPECT_EQ(set_up({}, HandoffForm::x_ignore_shared).problem, "");
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "postcopy-ram", "state": false})"));
}

TEST_F(DestinationSetupTest, one_that_expects_tls_is_refused) {
  qemu_.answers["query-migrate-parameters"] = R"({"max-bandwidth": 134217728, "tls-creds": "tls0"})";
  expect_refused("tls-creds is tls0");
  EXPECT_NE(set_up().problem.find("--handoff-tls-creds"), std::string::npos) << "what to do";
}

TEST_F(DestinationSetupTest, tls_is_for_one_that_has_tls_creds_and_for_no_other) {
  const DestinationSetup refused = set_up({}, HandoffForm::plain, /*tls=*/true);
  EXPECT_NE(refused.problem.find("--handoff-tls off"), std::string::npos) << refused.problem;
  EXPECT_FALSE(qemu_.was_told("migrate-incoming"));
  qemu_.answers["query-migrate-parameters"] = R"({"max-bandwidth": 134217728, "tls-creds": "tls0"})";
  EXPECT_EQ(set_up({}, HandoffForm::plain, /*tls=*/true).problem, "");
}

TEST_F(DestinationSetupTest, one_that_was_given_a_guest_meanwhile_is_not_armed) {
  EXPECT_EQ(inspect_destination(qemu_, blocks_, HandoffForm::plain, false).problem, "");
  qemu_.answers["query-status"] = R"({"status": "running", "running": true})";
  EXPECT_NE(
      arm_destination(qemu_, "unix:/run/vm0.sock", {}, HandoffForm::plain, {}).problem.find("inmigrate"),
      std::string::npos);
  EXPECT_FALSE(qemu_.was_told("migrate-set-capabilities"));
}

// Its path leads to another file by now: only one that maps the file of before has the guest's memory.
TEST_F(DestinationSetupTest, a_file_replaced_since_it_was_claimed_has_to_be_mapped_all_the_same) {
  const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  const std::vector<SharedFile> files{{"mem", path_, file_id_at(path_), 4096}};
  const auto arm = [&] {
    return arm_destination(qemu_, "unix:/run/vm0.sock", {}, HandoffForm::plain, files).problem;
  };
  EXPECT_EQ(arm(), "");
  qemu_.said.clear();
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  EXPECT_NE(arm().find("was removed or replaced"), std::string::npos) << arm();
  EXPECT_FALSE(qemu_.was_told("migrate-incoming"));
  void* const mapping = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  EXPECT_EQ(arm(), "");
  ::munmap(mapping, 4096);
  ::close(fd);
}

TEST_F(DestinationSetupTest, what_harms_the_guest_later_is_turned_off_when_it_is_there) {
  EXPECT_EQ(disarm_destination(qemu_), "");
  EXPECT_EQ(
      qemu_.said.back(),
      R"(migrate-set-capabilities {"capabilities": [{"capability": "x-ignore-shared", "state": false}]})");
  qemu_.answers.clear();
  EXPECT_NE(disarm_destination(qemu_).find("refused"), std::string::npos);
}

TEST_F(DestinationSetupTest, a_destination_without_S_is_a_warning) {
  qemu_.answers["query-migrate-capabilities"] = "[]";
  qemu_.stopped = true;
  EXPECT_TRUE(set_up().warnings.empty());
  qemu_.stopped = false;
  EXPECT_NE(set_up().warnings.at(0).find("without -S"), std::string::npos);
}

TEST(QemuStartsStopped, is_a_word_of_its_command_line) {
  using namespace std::string_view_literals;
  EXPECT_EQ(qemu_starts_stopped("/usr/bin/qemu-system-x86_64\0-m\0004G\0-S\0"sv), true);
  EXPECT_EQ(qemu_starts_stopped("qemu-kvm\0-name\0x-S\0-Sx\0"sv), false);
  EXPECT_EQ(qemu_starts_stopped("socat\0-S\0"sv), std::nullopt);
  EXPECT_EQ(qemu_starts_stopped(""sv), std::nullopt);
}

TEST_F(DestinationSetupTest, switchover_ack_as_at_the_source) {
  EXPECT_EQ(set_up({.switchover_ack = true}).problem, "");
  EXPECT_TRUE(qemu_.was_told(R"({"capability": "switchover-ack", "state": true})"));
}

TEST_F(DestinationSetupTest, the_operators_address_wins_and_a_contradiction_is_told) {
  blocks_[0].addr = 0x1000;
  const DestinationSetup setup = set_up();
  EXPECT_EQ(setup.addresses.at("mem"), 0x1000U);
  EXPECT_NE(setup.warnings.at(0).find("addr=4096"), std::string::npos) << setup.warnings[0];
}

// The form of QEMU before 6.1 (qapi/machine.json, Memdev): no `share`.
TEST_F(DestinationSetupTest, a_qemu_that_lists_no_share_is_asked_for_each_backend) {
  qemu_.version_ = "5.2.0";
  qemu_.answers["query-memdev"] =
      R"([{"prealloc": false, "host-nodes": [], "size": 4096, "merge": true, "dump": true, "policy": "default", "id": "mem"}])";
  qemu_.answers["qom-get share"] = "true";
  EXPECT_EQ(set_up().problem, "");
  EXPECT_TRUE(qemu_.was_told(R"(qom-get {"path": "/objects/mem", "property": "share"})"));
  EXPECT_EQ(qemu_.said.back(), R"(migrate-incoming {"uri": "unix:/run/vm0.sock"})");
}
TEST_F(DestinationSetupTest, and_one_that_says_it_is_private_is_refused) {
  qemu_.answers["query-memdev"] = R"([{"prealloc": false, "host-nodes": [], "size": 4096, "id": "mem"}])";
  qemu_.answers["qom-get share"] = "false";
  expect_refused("share=on");
  qemu_.answers["qom-get share"] = "4096";
  expect_refused("not of the form");
  qemu_.answers["query-memdev"] = R"([{"size": 4096, "share": 1, "id": "mem"}])";
  expect_refused("not of the form");
}

TEST_F(DestinationSetupTest, a_machine_that_does_not_wait_is_refused) {
  qemu_.answers["query-status"] = R"({"status": "running"})";
  expect_refused("-incoming defer");
}
TEST_F(DestinationSetupTest, a_migration_under_way_is_refused) {
  qemu_.answers["query-migrate"] = R"({"status": "active"})";
  expect_refused("active already");
}
TEST_F(DestinationSetupTest, memory_that_is_not_shared_is_refused) {
  qemu_.answers["query-memdev"] = R"([{"id": "mem", "size": 4096, "share": false}])";
  expect_refused("share=on");
}
TEST_F(DestinationSetupTest, memory_of_another_size_is_refused) {
  qemu_.answers["query-memdev"] = R"([{"id": "mem", "size": 8192, "share": true}])";
  expect_refused("8192 bytes");
}
TEST_F(DestinationSetupTest, memory_on_another_node_is_refused) {
  qemu_.answers["query-memdev"] = R"([{"id": "mem", "size": 4096, "share": true, "host-nodes": [1]}])";
  expect_refused("node=0");
}
TEST_F(DestinationSetupTest, memory_that_is_missing_is_refused) {
  qemu_.answers["query-memdev"] = "[]";
  expect_refused("no memory backend mem");
}
TEST_F(DestinationSetupTest, another_shared_backend_is_refused) {
  qemu_.answers["query-memdev"] =
      R"([{"id": "mem", "size": 4096, "share": true}, {"id": "dimm", "size": 4096, "share": true}])";
  expect_refused("--ram dimm=");
}
// QEMU 10 sends pages of anonymous shared memory; 7.2 does not.
TEST_F(DestinationSetupTest, another_shared_backend_without_a_file_depends_on_the_version) {
  blocks_.clear();
  qemu_.answers["query-memdev"] = R"([{"id": "memfd", "size": 4096, "share": true}])";
  qemu_.answers.erase("qom-get");
  EXPECT_EQ(set_up().problem, "");
  qemu_.version_ = "7.2.22";
  EXPECT_NE(set_up().problem.find("memfd"), std::string::npos);
}
TEST_F(DestinationSetupTest, a_destination_that_waits_already_is_refused) {
  qemu_.answers["query-migrate"] = R"({"socket-address": [{"type": "unix", "path": "/x"}]})";
  expect_refused("waits on a socket already");
}
TEST_F(DestinationSetupTest, blocks_behind_a_device_have_their_backends_id_last) {
  blocks_[0].idstr = "0000:00:05.0/mem";
  const DestinationSetup setup = set_up();
  EXPECT_EQ(setup.problem, "");
  EXPECT_EQ(setup.addresses.at("0000:00:05.0/mem"), 0x2000U);
}
// ivshmem: no BAR is mapped while the destination waits, so info mtree does not show the region.
TEST_F(DestinationSetupTest, a_block_in_a_bar_has_address_0) {
  blocks_[0].idstr = "0000:00:02.0/mem";
  qemu_.answers["human-monitor-command"] = R"("memory-region: a\r\n  1000-8fff (prio 0, i/o): a\r\n")";
  const DestinationSetup setup = set_up();
  EXPECT_EQ(setup.problem, "");
  EXPECT_EQ(setup.addresses.at("0000:00:02.0/mem"), 0U);
  for (const std::string& warning : setup.warnings) EXPECT_EQ(warning.find("info mtree"), std::string::npos);
  blocks_[0].idstr = "0000:00:zz.0/mem";
  EXPECT_FALSE(set_up().addresses.contains("0000:00:zz.0/mem"));
}
TEST_F(DestinationSetupTest, advice_names_the_block_as_the_source_does_and_the_backend_as_an_object) {
  qemu_.answers["human-monitor-command info ramblock"] =
      R"("   Block Name    PSize  Offset\r\n          m0    4 KiB  0x0\r\n   0000:00:02.0/iv    4 KiB  0x4000\r\n")";
  qemu_.answers["query-memdev"] =
      R"([{"id": "mem", "size": 4096, "share": true}, {"id": "iv", "size": 4096, "share": true}])";
  expect_refused("--ram 0000:00:02.0/iv=PATH");
  qemu_.answers["query-memdev"] = R"([{"id": "other", "size": 4096, "share": true}])";
  blocks_[0].idstr = "0000:00:02.0/iv";
  expect_refused("memory-backend-file,id=iv,share=on");
}
TEST_F(DestinationSetupTest, memory_in_another_file_is_refused) {
  qemu_.answers["qom-get"] = "\"/dev/null\"";
  expect_refused("/dev/null");
}
TEST_F(DestinationSetupTest, memory_without_a_file_is_refused) {
  qemu_.answers.erase("qom-get");
  expect_refused("memory-backend-file");
}

TEST_F(DestinationSetupTest, answers_of_any_form_are_refusals) {
  const auto right = qemu_.answers;
  for (const auto& [name, unused] : right) {
    if (name == "migrate-set-capabilities" || name == "migrate-incoming") continue;
    for (const char* const nonsense : {"3", "null", "[[]]", "\"\"", R"({"status": 3})", R"([{"id": 3}])"}) {
      qemu_.answers = right;
      qemu_.answers[name] = nonsense;
      qemu_.said.clear();
      const DestinationSetup setup = set_up();
      // A region that is not found and a migration without a status are not wrong by themselves.
      if (name != "human-monitor-command" && name != "query-migrate") {
        EXPECT_NE(setup.problem, "") << name << " " << nonsense;
      }
    }
  }
  qemu_.answers = right;
  qemu_.answers.erase("migrate-incoming");
  EXPECT_NE(set_up().problem.find("migrate-incoming: refused"), std::string::npos);
}

}  // namespace
}  // namespace migrx
