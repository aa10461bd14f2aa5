#include "loader/control/control_parser.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <random>

namespace migrx {
namespace {

using Json = nlohmann::json;

std::string complaint(std::string_view line) {
  const ControlLine parsed = parse_control_line(line);
  if (!parsed.error) return "";
  EXPECT_EQ(parsed.error->error_class, control_class::kMalformed);
  return parsed.error->sentence;
}

std::vector<Descriptor> files(std::size_t count) {
  std::vector<Descriptor> out;
  while (out.size() < count) {
    std::array<int, 2> pipe{};
    EXPECT_EQ(::pipe(pipe.data()), 0);
    out.emplace_back(pipe[0]);
    ::close(pipe[1]);
  }
  return out;
}

TEST(ControlLine, a_request_has_a_command_arguments_and_an_id) {
  const ControlLine line = parse_control_line(
      R"({"execute": "session-add", "arguments": {"ram": ["mem=/dev/shm/x"]}, "id": [1, "a"]})");
  EXPECT_FALSE(line.error);
  EXPECT_EQ(line.command, "session-add");
  EXPECT_EQ(line.arguments["ram"][0], "mem=/dev/shm/x");
  EXPECT_EQ(*line.id, Json::parse(R"([1, "a"])"));
  const ControlLine bare = parse_control_line(R"({"execute": "query-host"})");
  EXPECT_FALSE(bare.error);
  EXPECT_EQ(bare.arguments, Json::object());
  EXPECT_FALSE(bare.id);
}

TEST(ControlLine, what_is_no_request_is_refused_with_what_one_is) {
  EXPECT_NE(complaint("").find("no JSON from byte"), std::string::npos);
  EXPECT_NE(complaint("GET / HTTP/1.1").find("no JSON from byte 1 on"), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a"} {})").find("no JSON"), std::string::npos);
  EXPECT_NE(complaint("{\"execute\": \"\xff\"}").find("no JSON"), std::string::npos);
  EXPECT_NE(complaint("[]").find("object"), std::string::npos);
  EXPECT_NE(complaint("{}").find("names its command"), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": 1})").find("string"), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a", "arguments": []})").find("object"), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a", "arguments": null})").find("object"), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a", "argument": {}})").find("no key \"argument\""), std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a", "arguments": {"x": 1e999}})").find("out of range"),
            std::string::npos);
}

// The last one would count, and a reader of the request may have looked at the first.
TEST(ControlLine, a_key_that_is_there_twice_is_refused_at_every_depth) {
  EXPECT_NE(complaint(R"({"execute": "quit", "execute": "query-host"})").find("\"execute\" is there twice"),
            std::string::npos);
  EXPECT_NE(complaint(R"({"execute": "a", "arguments": {"x": [{"y": 1, "y": 2}]}})").find("twice"),
            std::string::npos);
  EXPECT_EQ(complaint(R"({"execute": "a", "arguments": {"x": [{"y": 1}, {"y": 2}], "y": 3}})"), "");
}

TEST(ControlLine, an_error_bears_the_id_where_there_is_one) {
  EXPECT_EQ(*parse_control_line(R"({"execute": 7, "id": 42})").id, 42);
  EXPECT_EQ(*parse_control_line(R"({"executes": "x", "id": null})").id, nullptr);
}

TEST(ControlLine, nesting_has_a_bound) {
  const auto nested = [](int levels) {  // the request's own object among them
    const auto more = static_cast<std::size_t>(levels - 2);
    return R"({"execute": "a", "arguments": {"x": )" + std::string(more, '[') + std::string(more, ']') + "}}";
  };
  EXPECT_EQ(complaint(nested(ControlParser::kDepthMax)), "");
  EXPECT_NE(complaint(nested(ControlParser::kDepthMax + 1)).find("deeper than 16"), std::string::npos);
  EXPECT_NE(complaint(nested(30000)).find("deeper"), std::string::npos);
  EXPECT_NE(complaint(std::string(60000, '[')), "");
  std::string objects;
  for (int i = 0; i < 8000; ++i) objects += "{\"a\":";
  EXPECT_NE(complaint(objects), "");
}

TEST(ControlParser, half_a_line_waits_and_blank_lines_are_nothing) {
  ControlParser parser;
  EXPECT_EQ(parser.feed("\n \r\n{\"execute\"", {}), "");
  EXPECT_FALSE(parser.next());
  EXPECT_FALSE(parser.ready());
  EXPECT_EQ(parser.feed(": \"a\"}\r", {}), "");
  EXPECT_FALSE(parser.ready());
  EXPECT_EQ(parser.feed("\n", {}), "");
  EXPECT_TRUE(parser.ready());
  EXPECT_EQ(parser.next()->command, "a");
  EXPECT_FALSE(parser.next());
}

TEST(ControlParser, a_line_without_end_is_not_held_for_ever) {
  ControlParser parser;
  std::string problem;
  std::size_t fed = 0;
  for (; problem.empty() && fed < (1 << 20); fed += 1000) problem = parser.feed(std::string(1000, 'x'), {});
  EXPECT_NE(problem.find("longer than 65536"), std::string::npos);
  EXPECT_LE(fed, ControlParser::kLineMax + 2000);
}

TEST(ControlParser, a_line_as_long_as_allowed_is_taken_and_one_byte_more_is_not) {
  const auto line = [](std::size_t bytes) {
    const std::string begin = R"({"execute": ")";
    return begin + std::string(bytes - begin.size() - 2, 'x') + "\"}";
  };
  ControlParser parser;
  EXPECT_EQ(parser.feed(line(ControlParser::kLineMax) + "\n", {}), "");
  EXPECT_FALSE(parser.next()->error);
  ControlParser other;
  EXPECT_NE(other.feed("{\"execute\": \"first\"}\n" + line(ControlParser::kLineMax + 1) + "\n", {}), "");
  EXPECT_EQ(other.next()->command, "first");  // it was complete
  EXPECT_FALSE(other.next());
}

TEST(ControlParser, descriptors_belong_to_the_request_in_which_their_piece_ends) {
  ControlParser parser;
  // The kernel put bytes of an earlier message in front.
  EXPECT_EQ(parser.feed("{\"execute\": \"a\"}\n{\"execute\": \"b\"", files(2)), "");
  EXPECT_EQ(parser.next()->files.size(), 0U);
  EXPECT_EQ(parser.feed("}\n{\"execute\": \"c\"}\n", files(1)), "");
  EXPECT_EQ(parser.next()->files.size(), 2U);
  const auto c = parser.next();
  EXPECT_EQ(c->command, "c");
  EXPECT_EQ(c->files.size(), 1U);
}

TEST(ControlParser, descriptors_are_bounded_however_they_come) {
  ControlParser parser;
  EXPECT_EQ(parser.feed("{", files(ControlParser::kDescriptorsMax)), "");
  EXPECT_NE(parser.feed(" ", files(1)).find("more than 16"), std::string::npos);
  ControlParser other;
  std::string problem;
  int pieces = 0;
  for (; problem.empty() && pieces < 100; ++pieces)
    problem = other.feed("\n", files(1));  // nobody takes them
  EXPECT_LE(pieces, 17);
  ControlParser none;
  EXPECT_NE(none.feed("", files(1)), "");
}

TEST(ControlParser, a_refused_request_has_its_descriptors_too_so_that_they_are_closed) {
  ControlParser parser;
  EXPECT_EQ(parser.feed("nonsense\n", files(2)), "");
  EXPECT_EQ(parser.next()->files.size(), 2U);
  EXPECT_EQ(parser.feed("\n{\"execute\": \"a\"}\n", {}), "");
  EXPECT_EQ(parser.next()->files.size(), 0U);
}

// However a stream is cut, the requests are the same.
TEST(ControlParser, pieces_of_any_size_give_the_same_requests) {
  const std::string stream =
      "{\"execute\": \"a\", \"id\": 1}\r\n\n{\"execute\"\n{\"execute\": \"b\", \"arguments\": {\"x\": "
      "\"\\n\"}}\n[1]\n"
      "{\"execute\": \"c\"}\nrest";
  const auto requests = [&](const auto& piece) {
    ControlParser parser;
    std::string all;
    for (std::size_t at = 0; at < stream.size();) {
      const std::string_view bytes = std::string_view(stream).substr(at, piece());
      at += bytes.size();
      EXPECT_EQ(parser.feed(bytes, {}), "");
      while (auto line = parser.next())
        all += line->error ? line->error->sentence + ";" : line->command + line->arguments.dump() + ";";
    }
    return all;
  };
  const std::string whole = requests([&] { return stream.size(); });
  EXPECT_NE(whole.find("b{\"x\":\"\\n\"};"), std::string::npos);
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(requests([&] { return 1 + random() % 20; }), whole);
  EXPECT_EQ(requests([] { return std::size_t{1}; }), whole);
}

}  // namespace
}  // namespace migrx
