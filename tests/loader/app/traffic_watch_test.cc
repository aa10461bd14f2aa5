#include "loader/app/traffic_watch.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

// Told of the fifth that is dropped, once; never where sound segments come as well.
void expect_told_once(uint64_t TrafficFacts::*dropped, const char* advice) {
  TrafficWatch watch(1500, "10.0.0.2");
  TrafficFacts facts;
  facts.*dropped = 4;
  EXPECT_EQ(watch.look(facts), "");
  facts.*dropped = 5;
  EXPECT_NE(watch.look(facts).find(advice), std::string::npos);
  facts.*dropped = 500;
  EXPECT_EQ(watch.look(facts), "");
  TrafficWatch among_sound_ones(1500, "10.0.0.2");
  facts = {};
  for (int i = 0; i < 1000; ++i) {
    facts.segments += 1;
    facts.*dropped += 4;
    EXPECT_EQ(among_sound_ones.look(facts), "");
  }
}

TEST(TrafficWatch, packets_that_all_have_wrong_checksums_are_named_once_with_the_command) {
  expect_told_once(&TrafficFacts::wrong_checksums, "ethtool -K");
}

TEST(TrafficWatch, frames_with_two_vlan_tags_are_named_once_unless_sound_ones_come_too) {
  expect_told_once(&TrafficFacts::stacked_vlans, "take the outer tag off");
}

TrafficFacts standing(double now_s, uint64_t answers) {
  TrafficFacts facts;
  facts.now_s = now_s;
  facts.segments = 10 + answers;
  facts.in_order = 3;
  facts.connections = 1;
  facts.acks_from_behind_hole = answers;
  return facts;
}

TEST(TrafficWatch, a_path_that_carries_small_packets_only_is_named_with_the_command) {
  TrafficWatch watch(1500, "10.0.0.2");
  EXPECT_EQ(watch.look(standing(1, 0)), "");
  EXPECT_EQ(watch.look(standing(5, 1)), "");
  EXPECT_EQ(watch.look(standing(9, 2)), "");
  const std::string line = watch.look(standing(13, 3));
  EXPECT_NE(line.find("ping -M do -s 1472 10.0.0.2"), std::string::npos) << line;
  EXPECT_EQ(watch.look(standing(17, 4)), "");
}

TEST(TrafficWatch, a_quiet_source_and_one_whose_stream_gets_on_are_not) {
  TrafficWatch quiet(1500, "10.0.0.2");
  for (int s = 0; s < 600; ++s) EXPECT_EQ(quiet.look(standing(s, 0)), "");
  TrafficWatch lossy(1500, "10.0.0.2");
  for (int s = 0; s < 600; ++s) {
    TrafficFacts facts = standing(s, static_cast<uint64_t>(s));
    facts.in_order = static_cast<uint64_t>(s / 5);
    EXPECT_EQ(lossy.look(facts), "");
  }
}

// The link was away for 60 s; the sender comes again 60 s later at the latest.
TEST(TrafficWatch, after_an_outage_the_sender_has_its_time) {
  TrafficWatch watch(1500, "10.0.0.2");
  EXPECT_EQ(watch.look(standing(1, 0)), "");
  for (int s = 61; s < 133; s += 4) EXPECT_EQ(watch.look(standing(s, static_cast<uint64_t>(s))), "") << s;
  EXPECT_NE(watch.look(standing(133, 133)), "");
}

TEST(TrafficWatch, after_an_outage_one_connection_that_gets_on_says_nothing_of_the_others) {
  TrafficWatch watch(1500, "10.0.0.2");
  EXPECT_EQ(watch.look(standing(1, 0)), "");
  for (int s = 61; s < 121; s += 4) {
    TrafficFacts facts = standing(s, static_cast<uint64_t>(s));
    facts.in_order = s < 70 ? 3 : 4;
    EXPECT_EQ(watch.look(facts), "") << s;
  }
}

TEST(TrafficWatch, a_second_outage_adds_to_the_first) {
  TrafficWatch watch(1500, "10.0.0.2");
  EXPECT_EQ(watch.look(standing(1, 0)), "");
  EXPECT_EQ(watch.look(standing(61, 61)), "");
  for (int s = 81; s < 173; s += 4) EXPECT_EQ(watch.look(standing(s, static_cast<uint64_t>(s))), "") << s;
  EXPECT_NE(watch.look(standing(173, 173)), "");
}

TEST(TrafficWatch, nobody_there_is_no_hole) {
  TrafficWatch watch(1500, "10.0.0.2");
  EXPECT_EQ(watch.look(standing(0, 0)), "");
  TrafficFacts facts = standing(100, 50);
  facts.connections = 0;
  EXPECT_EQ(watch.look(facts), "");
}

}  // namespace
}  // namespace migrx
