#include "loader/app/report.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace migrx {
namespace {

TEST(Report, names_the_error_as_an_operator_needs_it) {
  Report report;
  report.outcome = "failed";
  report.error =
      make_error_values(ErrorClass::bad_stream, 4711, "multifd packet: normal_pages", 200, 128, "too many");
  report.error.channel = ChannelName{MultifdId{3}};
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json["error"]["class"], "bad-stream");
  EXPECT_EQ(json["error"]["channel"], "multifd 3");
  EXPECT_EQ(json["error"]["offset"], 4711);
  EXPECT_EQ(json["error"]["found"], 200);
  EXPECT_EQ(json["error"]["allowed"], 128);
  EXPECT_NE(summary(report).find("multifd 3: byte 4711: multifd packet: normal_pages"), std::string::npos);
}

TEST(Report, moments_that_did_not_come_are_null) {
  Report report;
  report.timeline.ready_s = 1.5;
  report.started_unix_s = 1795420966.5;
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json["timeline"]["ready_s"], 1.5);
  EXPECT_EQ(json["started_unix_s"], 1795420966.5);
  EXPECT_TRUE(json["timeline"]["switchover_s"].is_null());
  EXPECT_TRUE(json["error"].is_null());
}

TEST(Report, a_name_that_is_not_utf8_does_not_break_it) {
  Report report;
  report.blocks.push_back({"b\xff", 8192, 1, "", -1, true});
  EXPECT_EQ(nlohmann::json::parse(to_json(report))["blocks"][0]["zero_pages"], 1);
}

TEST(Report, a_port_is_told_as_it_was_negotiated) {
  Report report;
  EXPECT_FALSE(nlohmann::json::parse(to_json(report)).contains("ports"));
  report.ports.push_back(
      {"0000:41:00.0", "net_virtio", "52:54:00:77:00:02", 1, "up", 9000, 2, 1024, 512, {"rss"}});
  const auto port = nlohmann::json::parse(to_json(report))["ports"][0];
  EXPECT_EQ(port["driver"], "net_virtio");
  EXPECT_EQ(port["node"], 1);
  EXPECT_EQ(port["offloads"], nlohmann::json::array({"rss"}));
}

TEST(Report, an_unwritable_place_is_said) {
  EXPECT_NE(write_report("/nonexistent/dir/report.json", {}).find("cannot write"), std::string::npos);
}

TEST(Report, takes_the_place_of_a_report_and_of_nothing_else) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("migrx-report-else-" + std::to_string(::getpid()));
  std::ofstream(path) << "QEVM, a guest that was saved";
  EXPECT_NE(check_report_path(path).find("would be lost"), std::string::npos);
  EXPECT_NE(write_report(path, {}).find("something else"), std::string::npos);
  EXPECT_EQ(std::ifstream(path).get(), 'Q');
  for (const char* const replaceable : {"", "{\n}\n"}) {
    std::ofstream(path) << replaceable;
    EXPECT_EQ(check_report_path(path), "");
    EXPECT_EQ(write_report(path, {}), "");
  }
  std::filesystem::remove(path);
}

TEST(Report, is_written_whole) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("migrx-report-" + std::to_string(::getpid()));
  ASSERT_EQ(write_report(path, {}), "");
  std::ifstream in(path);
  EXPECT_EQ(nlohmann::json::parse(in)["program"], "migrx");
  EXPECT_FALSE(std::filesystem::exists(path + "." + std::to_string(::getpid()) + ".tmp"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace migrx
