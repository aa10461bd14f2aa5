#include "numa/ram_spec.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

TEST(RamSpecTest, sizes_and_nodes) {
  RamSpec spec;
  EXPECT_EQ(parse_ram_spec("/objects/mem=/dev/hugepages/vm0,size=4G,node=1", spec), "");
  EXPECT_EQ(spec.id, "/objects/mem");
  EXPECT_EQ(spec.size, 4ULL << 30);
  EXPECT_EQ(spec.node, NodeId{1});
  EXPECT_NE(parse_ram_spec("mem", spec), "");
  EXPECT_NE(parse_ram_spec("mem=relative/path", spec), "");
}

TEST(RamSpecTest, who_gets_a_new_file) {
  RamSpec spec;
  EXPECT_EQ(parse_ram_spec("mem=/dev/shm/vm0", spec), "");
  EXPECT_EQ(spec.mode, 0600U);
  EXPECT_FALSE(spec.owner);
  EXPECT_EQ(parse_ram_spec("mem=/dev/shm/vm0,mode=0660,owner=64055:36", spec), "");
  EXPECT_EQ(spec.mode, 0660U);
  EXPECT_EQ(spec.owner, (FileOwner{64055, 36}));
  EXPECT_EQ(parse_ram_spec("mem=/dev/shm/vm0,owner=root", spec), "");
  EXPECT_EQ(spec.owner, (FileOwner{0, 0}));
  for (const char* const wrong : {"mode=0777", "mode=4600", "mode=060", "mode=", "mode=0600x", "mode=-1"})
    EXPECT_NE(parse_ram_spec("mem=/dev/shm/vm0," + std::string(wrong), spec), "") << wrong;
  EXPECT_NE(parse_ram_spec("mem=/dev/shm/vm0,owner=nobody-has-this-name", spec).find("no user"),
            std::string::npos);
  EXPECT_NE(parse_ram_spec("mem=/dev/shm/vm0,owner=0:nor-this", spec).find("no group"), std::string::npos);
  EXPECT_NE(parse_ram_spec("mem=/dev/shm/vm0,owner=4294967295", spec), "");
}

TEST(RamSpec, a_descriptor_is_named_by_its_number_where_some_came_along) {
  RamSpec spec;
  EXPECT_EQ(parse_ram_spec("mem=fd:1,size=64M", spec, 2), "");
  EXPECT_EQ(spec.number, 1U);
  EXPECT_EQ(spec.path, "fd:1");
  EXPECT_EQ(spec.size, 64U << 20);
  for (const char* const wrong :
       {"mem=fd:2", "mem=fd:", "mem=fd:-1", "mem=fd:1x", "mem=fd: 1", "mem=fd:99999999999"})
    EXPECT_NE(parse_ram_spec(wrong, spec, 2).find("fd:0 to fd:1"), std::string::npos) << wrong;
  EXPECT_NE(parse_ram_spec("mem=fd:0", spec).find("must begin with /"), std::string::npos);
  EXPECT_EQ(parse_ram_spec("mem=/dev/shm/vm0", spec, 2), "");
  EXPECT_FALSE(spec.number);
  EXPECT_EQ(spec.access_path(), "/dev/shm/vm0");
  spec.given = GivenFile{7};
  EXPECT_EQ(spec.access_path(), "/proc/self/fd/7");
}

}  // namespace
}  // namespace migrx
