#include "numa/memory_budget.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

constexpr uint64_t kMib = 1 << 20;
constexpr uint64_t kGib = 1 << 30;
constexpr uint64_t kHuge = 2 * kMib;

MemoryNeed small(uint64_t bytes) {
  MemoryNeed need;
  need.path = "/dev/shm/vm0";
  need.bytes = bytes;
  need.file_system = "24";
  need.file_system_free = 64 * kGib;
  return need;
}

MemoryNeed huge(uint64_t bytes, NodeId node = kAnyNode) {
  MemoryNeed need;
  need.path = "/dev/hugepages/vm0";
  need.bytes = bytes;
  need.page_bytes = kHuge;
  need.node = node;
  return need;
}

MemoryFacts roomy() {
  MemoryFacts facts;
  facts.available = 16 * kGib;
  facts.total = 32 * kGib;
  return facts;
}

bool says(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

TEST(MemoryBudgetTest, what_is_there_is_taken) {
  EXPECT_EQ(memory_problem({small(8 * kGib)}, 32 * kMib, roomy()), "");
  EXPECT_EQ(memory_problem({}, 32 * kMib, roomy()), "");
}

TEST(MemoryBudgetTest, a_full_tmpfs_is_told_once_all_its_files_are_counted) {
  MemoryNeed first = small(3 * kGib);
  MemoryNeed second = small(2 * kGib);
  first.file_system_free = second.file_system_free = 4 * kGib;
  EXPECT_EQ(memory_problem({first}, 0, roomy()), "");
  const std::string problem = memory_problem({first, second}, 0, roomy());
  EXPECT_TRUE(says(problem, "4.0 GiB free, 5.0 GiB are needed")) << problem;
  second.file_system = "25";
  EXPECT_EQ(memory_problem({first, second}, 0, roomy()), "");
}

TEST(MemoryBudgetTest, the_host_has_to_have_it_and_something_left) {
  MemoryFacts facts = roomy();
  EXPECT_TRUE(says(memory_problem({small(16 * kGib)}, 0, facts), "16.0 GiB of memory are left on this host"));
  EXPECT_EQ(memory_problem({small(16 * kGib - 256 * kMib)}, 32 * kMib, facts), "");
  EXPECT_NE(memory_problem({small(16 * kGib - 256 * kMib)}, 192 * kMib, facts), "");
  facts.available.reset();  // the kernel does not tell
  EXPECT_EQ(memory_problem({small(64 * kGib)}, 0, facts), "");
}

TEST(MemoryBudgetTest, what_others_were_promised_is_not_ours) {
  MemoryFacts facts = roomy();
  facts.promised.jobs = {{"", 12 * kGib, {}, {}}};
  const std::string problem = memory_problem({small(8 * kGib)}, 0, facts);
  EXPECT_TRUE(says(problem, "12.0 GiB of them promised to other receivers")) << problem;
}

TEST(MemoryBudgetTest, nor_are_their_hugepages_and_their_room_on_a_tmpfs) {
  MemoryFacts facts = roomy();
  facts.pools = {
      {kAnyNode, kHuge, 300, 300, 0}, {NodeId{0}, kHuge, 200, 200, 0}, {NodeId{1}, kHuge, 100, 100, 0}};
  facts.groups.hugepages[kHuge].push_back({"/sys/fs/cgroup/a.slice/hugetlb.2MB.max", 300 * kHuge, 0});
  facts.groups.hugepages[kHuge].push_back({"/sys/fs/cgroup/a.slice/hugetlb.2MB.rsvd.max", 300 * kHuge, 0});
  const MemoryNeed of_node_1 = huge(60 * kHuge, NodeId{1});
  EXPECT_EQ(memory_problem({of_node_1}, 0, facts), "");
  facts.promised.jobs = {promise_of({huge(41 * kHuge, NodeId{1})}, "/sys/fs/cgroup/b.slice")};
  EXPECT_TRUE(says(memory_problem({of_node_1}, 0, facts), "1 of 60 pages of 2048 KiB are missing on node 1"));
  EXPECT_EQ(memory_problem({huge(60 * kHuge, NodeId{0})}, 0, facts), "");
  // Where the cpuset allows one node, what others take anywhere may come from there.
  facts.allowed = {NodeId{1}};
  EXPECT_NE(memory_problem({huge(60 * kHuge)}, 0, facts), "");
  facts.promised.jobs = {promise_of({huge(41 * kHuge)}, "/sys/fs/cgroup/b.slice")};
  EXPECT_NE(memory_problem({huge(60 * kHuge)}, 0, facts), "");
  facts.allowed.clear();
  // A limit on pages in use does not know yet of those that are promised below it; one on reservations does.
  EXPECT_EQ(memory_problem({huge(260 * kHuge)}, 0, facts), "");
  facts.promised.jobs = {promise_of({huge(41 * kHuge)}, "/sys/fs/cgroup/a.slice/vm.scope")};
  const std::string limited = memory_problem({huge(260 * kHuge)}, 0, facts);
  EXPECT_TRUE(says(limited, "82 MiB of them promised to other receivers")) << limited;
  facts.groups.hugepages[kHuge].erase(facts.groups.hugepages[kHuge].begin());
  EXPECT_EQ(memory_problem({huge(260 * kHuge)}, 0, facts), "");

  MemoryNeed first = small(3 * kGib);
  first.file_system_free = 4 * kGib;
  facts.promised.jobs = {promise_of({small(2 * kGib)}, "")};
  const std::string full = memory_problem({first}, 0, facts);
  EXPECT_TRUE(says(full, "4.0 GiB free, 2.0 GiB of them promised to other receivers, 3.0 GiB are needed"))
      << full;
  first.file_system = "25";
  EXPECT_EQ(memory_problem({first}, 0, facts), "");
}

TEST(MemoryBudgetTest, a_groups_limit_is_named) {
  MemoryFacts facts = roomy();
  facts.groups.memory.push_back({"/sys/fs/cgroup/machine.slice/memory.max", 4 * kGib, 3 * kGib});
  EXPECT_EQ(memory_problem({small(kGib)}, 0, facts), "");
  const std::string problem = memory_problem({small(2 * kGib)}, 0, facts);
  EXPECT_TRUE(says(problem, "1.0 GiB of memory are left below /sys/fs/cgroup/machine.slice/memory.max"))
      << problem;
  // A guest's own group below the one that has the limit, as libvirt makes them.
  facts.promised.jobs = {{"/sys/fs/cgroup/machine.slice/a.scope", 512 * kMib, {}, {}},
                         {"/sys/fs/cgroup/machine.slice2", 8 * kGib, {}, {}}};
  EXPECT_NE(memory_problem({small(768 * kMib)}, 0, facts), "");
  EXPECT_EQ(memory_problem({small(512 * kMib)}, 0, facts), "");
}

TEST(MemoryBudgetTest, hugepages_that_other_mappings_reserved_are_not_free) {
  MemoryFacts facts = roomy();
  facts.pools = {{kAnyNode, kHuge, 1000, 600, 200}};
  EXPECT_EQ(memory_problem({huge(400 * kHuge)}, 0, facts), "");
  const std::string problem = memory_problem({huge(401 * kHuge)}, 0, facts);
  EXPECT_TRUE(says(problem, "1 of 401 pages of 2048 KiB are missing")) << problem;
  EXPECT_TRUE(says(problem, "echo 1001 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")) << problem;
  // Our own mapping has its pages among those that are reserved.
  MemoryNeed reserved = huge(500 * kHuge);
  reserved.reserved = true;
  EXPECT_EQ(memory_problem({reserved}, 0, facts), "");
  // Memory of another kind does not help, nor hurt.
  facts.available = 0;
  EXPECT_EQ(memory_problem({reserved}, 32 * kMib, facts), "");
}

TEST(MemoryBudgetTest, a_node_has_to_have_its_own) {
  MemoryFacts facts = roomy();
  facts.pools = {
      {kAnyNode, kHuge, 1000, 1000, 0}, {NodeId{0}, kHuge, 900, 900, 0}, {NodeId{1}, kHuge, 100, 100, 0}};
  EXPECT_EQ(memory_problem({huge(100 * kHuge, NodeId{1})}, 0, facts), "");
  EXPECT_TRUE(says(memory_problem({huge(101 * kHuge, NodeId{1})}, 0, facts), "missing on node 1"));
  facts.pools[2].total = 300;  // 200 of them are somebody's
  facts.allowed = {NodeId{1}};
  EXPECT_TRUE(says(memory_problem({huge(101 * kHuge)}, 0, facts),
                   "echo 301 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"));
  EXPECT_TRUE(says(memory_problem({huge(101 * kHuge)}, 0, facts), "missing on node 1"));
  EXPECT_TRUE(says(memory_problem({huge(1 * kHuge, NodeId{0})}, 0, facts), "cpuset"));
}

TEST(MemoryBudgetTest, hugepage_limits_of_a_group) {
  MemoryFacts facts = roomy();
  facts.pools = {{kAnyNode, kHuge, 1000, 1000, 0}};
  facts.groups.hugepages[kHuge] = {{"/sys/fs/cgroup/a/hugetlb.2MB.rsvd.max", 100 * kHuge, 100 * kHuge}};
  EXPECT_TRUE(says(memory_problem({huge(kHuge)}, 0, facts), "rsvd.max"));
  MemoryNeed reserved = huge(kHuge);
  reserved.reserved = true;
  EXPECT_EQ(memory_problem({reserved}, 0, facts), "");
  facts.groups.hugepages[kHuge].push_back({"/sys/fs/cgroup/a/hugetlb.2MB.max", 10 * kHuge, 10 * kHuge});
  EXPECT_TRUE(says(memory_problem({reserved}, 0, facts), "hugetlb.2MB.max"));
}

// A host's files in a folder of this test's own.
class HostFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = "/tmp/migrx-budget-test-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    root_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

using ControlGroupTest = HostFolder;

TEST_F(ControlGroupTest, limits_up_to_the_root_without_what_the_kernel_gives_back) {
  put("/proc/77/cgroup", "0::/machine.slice/vm0\n");
  const std::string slice = "/sys/fs/cgroup/machine.slice";
  put(slice + "/memory.max", "1073741824\n");
  put(slice + "/memory.current", "536870912\n");
  put(slice + "/memory.stat", "anon 1\ninactive_file 268435456\nactive_file 0\n");
  put(slice + "/vm0/memory.max", "max\n");
  put(slice + "/vm0/memory.high", "900000000\n");
  put(slice + "/vm0/memory.current", "1000000000\n");
  put(slice + "/vm0/cgroup.procs", "");
  put(slice + "/vm0/hugetlb.1GB.rsvd.max", "2147483648\n");
  put(slice + "/vm0/hugetlb.1GB.rsvd.current", "1073741824\n");
  const HostFiles files(root_);
  const ControlGroupLimits limits = control_group_limits(files, "77", {kGib});
  ASSERT_EQ(limits.memory.size(), 2U);
  EXPECT_EQ(limits.memory[0].file, slice + "/vm0/memory.high");
  EXPECT_EQ(limits.memory[0].left(), 0U);  // beyond its limit is not less than nothing
  EXPECT_EQ(limits.memory[1].left(), 768 * kMib);
  ASSERT_EQ(limits.hugepages.at(kGib).size(), 1U);
  EXPECT_EQ(limits.hugepages.at(kGib)[0].left(), kGib);
  EXPECT_EQ(memory_group_of(files, "77"), slice + "/vm0");
  EXPECT_EQ(memory_group_of(files, "78"), "");
}

TEST_F(ControlGroupTest, the_older_hierarchies_and_both_at_a_time) {
  put("/proc/self/cgroup", "9:hugetlb:/h\n4:memory,misc:/vm\n0::/\n");
  put("/sys/fs/cgroup/unified/cgroup.procs", "");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("/sys/fs/cgroup/memory/vm/memory.limit_in_bytes", "1048576\n");
  put("/sys/fs/cgroup/memory/vm/memory.usage_in_bytes", "524288\n");
  put("/sys/fs/cgroup/memory/vm/memory.stat", "inactive_file 1\ntotal_inactive_file 262144\n");
  put("/sys/fs/cgroup/memory/vm/cgroup.procs", "");
  put("/sys/fs/cgroup/hugetlb/h/hugetlb.2MB.limit_in_bytes", "4194304\n");
  const HostFiles files(root_);
  const ControlGroupLimits limits = control_group_limits(files, "self", {kHuge});
  ASSERT_EQ(limits.memory.size(), 1U);
  EXPECT_EQ(limits.memory[0].left(), 786432U);
  EXPECT_EQ(limits.hugepages.at(kHuge).size(), 1U);
  EXPECT_EQ(memory_group_of(files, "self"), "/sys/fs/cgroup/memory/vm");
}

TEST_F(ControlGroupTest, a_group_outside_of_what_this_container_sees) {
  put("/proc/self/cgroup", "0::/../../other\n");
  put("/sys/fs/cgroup/memory.max", "1000000\n");
  put("/sys/fs/cgroup/memory.current", "0\n");
  EXPECT_EQ(control_group_limits(HostFiles(root_), "self", {}).memory.size(), 1U);
}

using MemoryFactsTest = HostFolder;

TEST_F(MemoryFactsTest, come_from_the_hosts_files) {
  put("/proc/meminfo", "MemTotal:       1024 kB\nMemFree: 5 kB\nMemAvailable:    512 kB\n");
  put("/proc/self/status", "Name:\tmigrx\nMems_allowed_list:\t0-1\n");
  const std::string pages = "/hugepages/hugepages-2048kB/";
  put("/sys/kernel/mm" + pages + "nr_hugepages", "10\n");
  put("/sys/kernel/mm" + pages + "free_hugepages", "8\n");
  put("/sys/kernel/mm" + pages + "resv_hugepages", "3\n");
  put("/sys/devices/system/node/node1" + pages + "free_hugepages", "7\n");
  put("/sys/devices/system/node/possible", "0-1\n");
  const MemoryFacts facts = memory_facts(HostFiles(root_), "self");
  EXPECT_EQ(facts.available, uint64_t{512} << 10);
  EXPECT_EQ(facts.total, uint64_t{1} << 20);
  ASSERT_NE(facts.pool(kAnyNode, kHuge), nullptr);
  EXPECT_EQ(facts.pool(kAnyNode, kHuge)->reserved, 3U);
  ASSERT_NE(facts.pool(NodeId{1}, kHuge), nullptr);
  EXPECT_EQ(facts.pool(NodeId{1}, kHuge)->free, 7U);
  EXPECT_EQ(facts.allowed, (std::set<NodeId>{NodeId{0}, NodeId{1}}));
}

using MemoryPromiseTest = HostFolder;

// A judge that refuses nobody.
auto keeps(PromisedBytes& seen) {
  return [&seen](const PromisedBytes& others) {
    seen = others;
    return std::string{};
  };
}

TEST_F(MemoryPromiseTest, others_see_what_is_yet_to_be_taken) {
  PromisedBytes seen;
  const auto look = keeps(seen);
  std::string problem;
  auto first = MemoryPromise::make(root_, {"/sys/fs/cgroup/a", 5000, {}, {}}, look, problem);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(seen.ordinary(), 0U);
  auto second = MemoryPromise::make(root_, {"/sys/fs/cgroup/b", 300, {}, {}}, look, problem);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(seen.ordinary(), 5000U);
  EXPECT_EQ(seen.ordinary_below("/sys/fs/cgroup/b"), 0U);
  EXPECT_EQ(seen.ordinary_below("/sys/fs/cgroup"), 5000U);
  first->update({"/sys/fs/cgroup/a", 70, {}, {}});
  const auto third = MemoryPromise::make(root_, {"/sys/fs/cgroup/a", 1, {}, {}}, look, problem);
  EXPECT_EQ(seen.ordinary(), 370U);
  EXPECT_EQ(seen.ordinary_below("/sys/fs/cgroup/a"), 70U);
  EXPECT_EQ(seen.ordinary_below("/sys/fs/cgroup"), 370U);
  first.reset();
  second.reset();
  const auto fourth = MemoryPromise::make(root_, {"", 1, {}, {}}, look, problem);
  EXPECT_EQ(seen.ordinary(), 1U);
}

TEST_F(MemoryPromiseTest, of_every_kind) {
  PromisedBytes seen;
  const auto look = keeps(seen);
  std::string problem;
  PromisedMemory memory{"/sys/fs/cgroup/a", 0, {}, {}};
  memory.hugepages = {{{NodeId{1}, kHuge}, 40 * kHuge}, {{kAnyNode, kGib}, 3 * kGib}};
  memory.file_systems = {{"24", 3 * kGib}, {"a name", 7}};
  const auto first = MemoryPromise::make(root_, memory, look, problem);
  memory.hugepages[{NodeId{1}, kHuge}] = kHuge;
  memory.file_systems["24"] = 0;
  first->update(memory);
  const auto second = MemoryPromise::make(root_, {"", 1, {}, {}}, look, problem);
  EXPECT_EQ(seen.ordinary(), 0U);
  EXPECT_EQ(seen.hugepages_of(NodeId{1}, kHuge), kHuge);
  EXPECT_EQ(seen.hugepages_of(NodeId{0}, kHuge), 0U);
  EXPECT_EQ(seen.hugepages_of(kAnyNode, kGib), 3 * kGib);
  EXPECT_EQ(seen.hugepages_below("/sys/fs/cgroup", kGib), 3 * kGib);
  EXPECT_EQ(seen.hugepages_below("/sys/fs/cgroup/b", kGib), 0U);
  EXPECT_EQ(seen.in_file_system("24"), 0U);
  EXPECT_EQ(seen.in_file_system("a name"), 7U);
}

TEST_F(MemoryPromiseTest, what_makes_no_sense_promises_nothing) {
  const int held = ::open((root_ + "/memory-1-0").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  const std::string text =
      "x\n12 huge\n13 huge 1\n14 huge a b\n99999999999999999999999 files q\n15 files\n16\n17 huge 1 2";
  ASSERT_EQ(::write(held, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  PromisedBytes seen;
  std::string problem;
  const auto look = keeps(seen);
  const auto promise = MemoryPromise::make(root_, {"", 1, {}, {}}, look, problem);
  EXPECT_EQ(seen.ordinary(), 0U);
  EXPECT_EQ(seen.hugepages_of(NodeId{1}, 2), 17U);
  EXPECT_EQ(seen.hugepages_of(NodeId{1}, 0), 0U);
  EXPECT_EQ(seen.in_file_system("q"), 0U);
  ::close(held);
}

TEST_F(MemoryPromiseTest, a_refusal_promises_nothing) {
  std::string problem;
  EXPECT_EQ(MemoryPromise::make(
                root_, {"", 5000, {}, {}}, [](const PromisedBytes&) { return std::string("no"); }, problem),
            nullptr);
  EXPECT_EQ(problem, "no");
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(MemoryPromiseTest, whoever_was_killed_promises_nothing_any_more) {
  put("/memory-1-0", "00000000000000005000 \n");
  put("/somebody.lost", "x");
  PromisedBytes seen;
  std::string problem;
  const auto promise = MemoryPromise::make(root_, {"", 1, {}, {}}, keeps(seen), problem);
  EXPECT_EQ(seen.ordinary(), 0U);
  EXPECT_FALSE(std::filesystem::exists(root_ + "/memory-1-0"));
  EXPECT_TRUE(std::filesystem::exists(root_ + "/somebody.lost"));
}

TEST(MemoryPromiseWithoutFolderTest, nobodys_promises_are_known) {
  std::string problem;
  EXPECT_NE(
      MemoryPromise::make(
          "/nowhere/at/all", {"", 1, {}, {}}, [](const PromisedBytes&) { return std::string{}; }, problem),
      nullptr);
}

}  // namespace
}  // namespace migrx
