// Command lines as libvirt and people write them.
#include "loader/destination/incoming_qemu.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <initializer_list>

namespace migrx {
namespace {

std::string line(std::initializer_list<const char*> words) {
  std::string text;
  for (const char* const word : words) text += std::string(word) + '\0';
  return text;
}

TEST(MemoryBackends, as_libvirt_writes_them) {
  const auto found = memory_backends(line(
      {"/usr/bin/qemu-system-x86_64", "-name", "guest=busy", "-object",
       R"({"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/master-key.aes"})",
       "-object",
       R"({"qom-type":"memory-backend-memfd","id":"pc.ram","hugetlb":true,"share":true,"x-use-canonical-path-for-ramblock-id":false,"size":67108864})",
       "-object",
       R"({"qom-type":"memory-backend-file","id":"ram-node1","mem-path":"/dev/hugepages/libvirt/qemu/1-busy","prealloc":true,"size":1073741824})",
       "-incoming", "defer"}));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].type, "memory-backend-memfd");
  EXPECT_EQ(found[0].id, "pc.ram");
  EXPECT_EQ(found[0].size, "67108864");
  EXPECT_EQ(found[0].share, true);
  EXPECT_EQ(found[1].path, "/dev/hugepages/libvirt/qemu/1-busy");
  EXPECT_EQ(found[1].share, std::nullopt);
}

TEST(MemoryBackends, as_people_write_them) {
  const auto found = memory_backends(
      line({"qemu", "--object", "memory-backend-file,id=mem,size=64M,share=on,mem-path=/dev/shm/a,,b",
            "-object", "qom-type=memory-backend-ram,id=r,size=1G,share=off"}));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].path, "/dev/shm/a,b");
  EXPECT_EQ(found[0].share, true);
  EXPECT_EQ(found[1].type, "memory-backend-ram");
  EXPECT_EQ(found[1].share, false);
}

TEST(MemoryBackends, damaged_words_are_passed_over) {
  EXPECT_TRUE(memory_backends("").empty());
  EXPECT_TRUE(memory_backends(line({"qemu", "-object"})).empty());
  EXPECT_TRUE(memory_backends(line({"qemu", "-object", R"({"qom-type":"memory-backend-memfd")"})).empty());
  EXPECT_TRUE(
      memory_backends(line({"qemu", "-object", R"([1,2])", "-object", "", "-object", ",,,"})).empty());
  EXPECT_TRUE(memory_backends("-object").empty()) << "no NUL at its end";
  const auto odd = memory_backends(
      line({"-object", R"({"qom-type":"memory-backend-file","id":7,"size":{"a":1},"share":"on"})"}));
  ASSERT_EQ(odd.size(), 1U);
  EXPECT_EQ(odd[0].id, "7");
  EXPECT_EQ(odd[0].size, "");
  EXPECT_EQ(odd[0].share, true);
}

TEST(StartedToWait, is_a_word_of_its_own) {
  EXPECT_TRUE(started_to_wait(line({"qemu", "-incoming", "defer"})));
  EXPECT_FALSE(started_to_wait(line({"qemu", "-name", "my-incoming"})));
  EXPECT_FALSE(started_to_wait(""));
}

const MemoryBackend kMemfd{"memory-backend-memfd", "pc.ram", "", "67108864", true};
const MemoryBackend kInFolder{"memory-backend-file", "ram-node0", "/dev/hugepages", "2147483648", true};
const MemoryBackend kNamed{"memory-backend-file", "mem", "/dev/shm/vm0", "64M", true};

TEST(FindMemory, by_what_each_descriptor_leads_to) {
  std::vector<std::string> ram;
  EXPECT_EQ(find_memory(77, {kNamed, kInFolder},
                        {{9, "/dev/shm/vm0"},
                         {12, "socket:[5]"},
                         {11, "/dev/hugepages/qemu_back_mem.ram-node0.aB3dE6 (deleted)"}},
                        ram),
            "");
  EXPECT_EQ(ram, (std::vector<std::string>{"mem=/proc/77/fd/9,size=64M",
                                           "ram-node0=/proc/77/fd/11,size=2147483648"}));
}

// Their names do not tell whose they are: descriptors and objects have the same order.
TEST(FindMemory, memfds_in_the_order_of_the_command_line) {
  MemoryBackend second = kMemfd;
  second.id = "ram-node1";
  std::vector<std::string> ram;
  EXPECT_EQ(find_memory(7, {kMemfd, second},
                        {{20, "/memfd:memory-backend-memfd (deleted)"},
                         {8, "/memfd:other (deleted)"},
                         {10, "/memfd:memory-backend-memfd (deleted)"}},
                        ram),
            "");
  EXPECT_EQ(ram, (std::vector<std::string>{"pc.ram=/proc/7/fd/10,size=67108864",
                                           "ram-node1=/proc/7/fd/20,size=67108864"}));
  EXPECT_NE(find_memory(7, {kMemfd, second}, {{10, "/memfd:memory-backend-memfd (deleted)"}}, ram)
                .find("its memory ram-node1 is not among"),
            std::string::npos);
}

TEST(FindMemory, what_nobody_else_can_fill_is_refused) {
  const auto problem = [](std::vector<MemoryBackend> backends) {
    std::vector<std::string> ram;
    return find_memory(7, backends, {{9, "/dev/shm/vm0"}, {10, "/memfd:memory-backend-memfd (deleted)"}},
                       ram);
  };
  EXPECT_NE(problem({}).find("private to it: give the domain"), std::string::npos);
  MemoryBackend backend = kNamed;
  backend.share = false;
  EXPECT_NE(problem({backend}).find("its memory mem is not shared"), std::string::npos);
  backend.share.reset();
  EXPECT_NE(problem({backend}).find("its memory mem is not shared"), std::string::npos) << "a file's default";
  backend = kMemfd;
  backend.share.reset();
  EXPECT_EQ(problem({backend}), "") << "a memfd's default";
  backend = {"memory-backend-ram", "r", "", "64M", true};
  EXPECT_NE(problem({backend}).find("its memory r is not shared"), std::string::npos);
  backend = kNamed;
  backend.id = "a,size=1\x1b";
  EXPECT_NE(problem({backend}).find("is no block's name"), std::string::npos);
  EXPECT_EQ(problem({backend}).find('\x1b'), std::string::npos);
}

// A file of another guest whose path begins alike is not taken for it.
TEST(FindMemory, similar_names_are_others) {
  std::vector<std::string> ram;
  for (const char* const other :
       {"/dev/shm/vm01", "/dev/hugepages/qemu_back_mem.ram-node0.aB3dE6x",
        "/dev/hugepages/qemu_back_mem.ram-node01.aB3dE6", "/dev/hugepages/x/qemu_back_mem.ram-node0.aB3dE6",
        "/dev/hugepages/qemu_back_mem.ram-node0.a/3dE6"}) {
    EXPECT_NE(find_memory(7, {kNamed}, {{9, other}}, ram), "") << other;
    EXPECT_NE(find_memory(7, {kInFolder}, {{9, other}}, ram), "") << other;
  }
}

TEST(LookAtMemory, of_a_process_that_is_no_qemu) {
  std::vector<std::string> ram;
  EXPECT_NE(look_at_memory(::getpid(), ram).find("private"), std::string::npos);
  EXPECT_NE(look_at_memory(999'999'999, ram), "");
  EXPECT_TRUE(waiting_processes_with_socket(1).empty());
}

}  // namespace
}  // namespace migrx
