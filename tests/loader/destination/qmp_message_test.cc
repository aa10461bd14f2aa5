#include "loader/destination/qmp_message.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(QmpMessage, the_four_kinds) {
  const auto greeting = parse_qmp_message(
      R"({"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}})");
  ASSERT_TRUE(greeting);
  EXPECT_EQ(greeting->kind, QmpKind::greeting);
  EXPECT_EQ(greeting->text, "10.0.2");
  const auto event = parse_qmp_message(R"({"timestamp": {"seconds": 1}, "event": "STOP"})");
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, QmpKind::event);
  EXPECT_EQ(event->text, "STOP");
  const auto error = parse_qmp_message(R"({"error": {"class": "GenericError", "desc": "no such thing"}})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->kind, QmpKind::error);
  EXPECT_EQ(error->text, "no such thing");
  const auto result = parse_qmp_message(R"({"return": [1, {"a": "b"}], "id": 7})");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->kind, QmpKind::result);
  EXPECT_EQ(result->text, R"([1,{"a":"b"}])");
}

TEST(QmpMessage, what_is_none) {
  for (const char* const line :
       {"", "x", "[]", "3", "{}", R"({"event": 3})", R"({"return": )", "\xff\xfe", "{\"return\": \"\xff\"}"})
    EXPECT_FALSE(parse_qmp_message(line)) << line;
  const auto odd = parse_qmp_message(R"({"QMP": 3})");
  ASSERT_TRUE(odd);
  EXPECT_EQ(odd->text, "?.?.?");
  EXPECT_EQ(parse_qmp_message(R"({"error": "x"})")->text, "an error without a description");
}

TEST(QmpMessage, no_nesting_exhausts_the_stack) {
  const std::string deep = "{\"return\": " + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}";
  const auto message = parse_qmp_message(deep);
  if (message) {
    EXPECT_LT(message->text.size(), 200U);
  }
  EXPECT_FALSE(parse_qmp_message("{\"return\": " + std::string(1'000'000, '[')));
}

TEST(QmpLines, torn_anywhere) {
  const std::string text = "first\r\n\r\nsecond\nthird\n";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    QmpLines lines;
    std::vector<std::string> out;
    for (const std::string& part : {text.substr(0, cut), text.substr(cut)}) {
      ASSERT_TRUE(lines.feed(part));
      while (const auto line = lines.next()) out.push_back(*line);
    }
    EXPECT_EQ(out, (std::vector<std::string>{"first", "second", "third"})) << cut;
  }
}

TEST(QmpLines, a_line_without_end_is_not_held_for_ever) {
  QmpLines lines;
  const std::string chunk(1 << 20, 'x');
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(lines.feed(chunk));
    EXPECT_FALSE(lines.next());
  }
  EXPECT_FALSE(lines.feed("y"));
}

// Found by its fuzz target as slowness: what was held was searched anew for every piece, here 2^39 bytes in
// all.
TEST(QmpLines, a_long_line_may_come_byte_by_byte) {
  QmpLines lines;
  for (int i = 0; i < 1 << 20; ++i) ASSERT_TRUE(lines.feed("x"));
  ASSERT_TRUE(lines.feed("\n"));
  const auto line = lines.next();
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->size(), std::size_t{1} << 20);
}

TEST(QmpReplies, memdevs) {
  const auto list = parse_memdevs(
      R"([{"id": "mem", "size": 67108864, "share": true, "host-nodes": [0, 2], "policy": "bind"},
          {"size": 1, "share": false, "host-nodes": []}])");
  ASSERT_TRUE(list);
  ASSERT_EQ(list->size(), 2U);
  EXPECT_EQ((*list)[0].id, "mem");
  EXPECT_EQ((*list)[0].size, 67108864U);
  EXPECT_EQ((*list)[0].share, true);
  EXPECT_EQ((*list)[0].host_nodes, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ((*list)[1].id, "");
  for (const char* const bad : {"", "{}", "[3]", R"([{"id": "a"}])", R"([{"size": -1, "share": true}])",
                                R"([{"size": "1", "share": true}])", R"([{"size": 1, "share": 1}])"})
    EXPECT_FALSE(parse_memdevs(bad)) << bad;
}

TEST(QmpReplies, capabilities_strings_and_members) {
  const auto states = parse_capability_states(R"([{"capability": "multifd", "state": true}])");
  ASSERT_TRUE(states);
  EXPECT_EQ((*states)[0], (std::pair<std::string, bool>{"multifd", true}));
  for (const char* const bad : {"3", "[3]", R"([{"capability": "x"}])", R"([{"state": true}])"})
    EXPECT_FALSE(parse_capability_states(bad)) << bad;
  EXPECT_EQ(parse_qmp_string("\"a\\nb\""), "a\nb");
  EXPECT_FALSE(parse_qmp_string("3"));
  EXPECT_EQ(parse_qmp_member(R"({"status": "inmigrate"})", "status"), "inmigrate");
  EXPECT_FALSE(parse_qmp_member("{}", "status"));
  EXPECT_FALSE(parse_qmp_member("[]", "status"));
  EXPECT_EQ(qmp_quote("a\"\n\xff"), "\"a\\\"\\n\xef\xbf\xbd\"");
}

constexpr const char* kMtree =
    "address-space: memory\r\n"
    "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\r\n"
    "    0000000000000000-0000000007ffffff (prio 0, i/o): alias ram-below-4g @pc.ram "
    "0000000000000000-0000000007ffffff\r\n"
    "    0000000100000000-00000001ffffffff (prio 0, i/o): device-memory\r\n"
    "      0000000140000000-000000017fffffff (prio 0, ram): dimm\r\n"
    "    00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\r\n"
    "\r\n"
    "memory-region: pc.ram\r\n"
    "  0000000000000000-0000000007ffffff (prio 0, i/o): pc.ram\r\n"
    "    0000000000000000-0000000003ffffff (prio 0, ram): near\r\n"
    "    0000000004000000-0000000007ffffff (prio 0, ram): far\r\n"
    "\r\n"
    "memory-region: mem\r\n"
    "  0000000000000000-0000000003ffffff (prio 0, ram): mem\r\n";

TEST(RegionOffset, is_that_inside_the_parent) {
  EXPECT_EQ(find_region_offset(kMtree, "mem"), 0U);
  EXPECT_EQ(find_region_offset(kMtree, "near"), 0U);
  EXPECT_EQ(find_region_offset(kMtree, "far"), 0x4000000U);
  EXPECT_EQ(find_region_offset(kMtree, "dimm"), 0x40000000U);  // not 0x140000000
  EXPECT_FALSE(find_region_offset(kMtree, "ram-below-4g"));    // an alias
  EXPECT_FALSE(find_region_offset(kMtree, "none"));
  EXPECT_FALSE(find_region_offset("", "mem"));
}

TEST(RegionOffset, a_parent_that_is_not_shown_is_no_answer) {
  EXPECT_FALSE(find_region_offset("  0-ff (prio 0, i/o): a\n      40-4f (prio 0, ram): x\n", "x"));
  EXPECT_EQ(find_region_offset("  10-ff (prio 0, i/o): a\n    40-4f (prio 0, ram): x\n", "x"), 0x30U);
}

TEST(RegionOffset, contradictions_and_nonsense_are_no_answer) {
  EXPECT_FALSE(
      find_region_offset("0-f (prio 0, i/o): a\n  4-7 (prio 0, ram): x\n  8-b (prio 0, ram): x\n", "x"));
  EXPECT_FALSE(
      find_region_offset("8-f (prio 0, i/o): a\n  4-7 (prio 0, ram): x\n", "x"));  // before its parent
  EXPECT_FALSE(find_region_offset("ffffffffffffffffff-1 (prio 0, ram): x\n", "x"));
  EXPECT_FALSE(find_region_offset("4-\n4\n-\n(prio 0, ram): x\n", "x"));
  const std::string text = kMtree;
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    const auto found = find_region_offset(text.substr(0, cut), "far");
    EXPECT_TRUE(!found || *found == 0x4000000U) << cut;
  }
}

}  // namespace
}  // namespace migrx
