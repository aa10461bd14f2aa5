#include "loader/control/control_message.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace migrx {
namespace {

using Json = nlohmann::json;

Json read(const std::string& line) {
  EXPECT_EQ(line.back(), '\n');
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  return Json::parse(line);
}

TEST(ControlMessage, each_is_one_line_of_json) {
  EXPECT_EQ(read(greeting_line("0.1.0")),
            Json::parse(R"({"migrx": {"version": "0.1.0", "protocol": 1, "capabilities": []}})"));
  EXPECT_EQ(read(return_line(Json::object(), std::nullopt)), Json::parse(R"({"return": {}})"));
  EXPECT_EQ(read(return_line(7, Json("x"))), Json::parse(R"({"return": 7, "id": "x"})"));
  EXPECT_EQ(read(error_line({"GenericError", "line\nbreak"}, Json(nullptr))),
            Json::parse(R"({"error": {"class": "GenericError", "desc": "line\nbreak"}, "id": null})"));
  EXPECT_EQ(read(event_line("READY", {{"id", "s1"}}, 5'000'007)),
            Json::parse(R"({"event": "READY", "data": {"id": "s1"},
                            "timestamp": {"seconds": 5, "microseconds": 7}})"));
  EXPECT_EQ(read(answer_line(ControlError{"A", "b"}, std::nullopt))["error"]["class"], "A");
  EXPECT_EQ(read(answer_line(Json(1), std::nullopt))["return"], 1);
}

TEST(ControlMessage, bytes_that_are_no_utf8_do_not_stop_it) {
  EXPECT_EQ(read(error_line({"A", "/tmp/\xff"}, std::nullopt))["error"]["desc"], "/tmp/\xef\xbf\xbd");
}

}  // namespace
}  // namespace migrx
