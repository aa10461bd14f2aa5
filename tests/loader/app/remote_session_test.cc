#include "loader/app/remote_session.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

using Json = nlohmann::json;

class RemoteSessionTest : public ::testing::Test {
 protected:
  // The command that is asked for now; it is sent. Empty: none.
  std::string ask() {
    const auto request = session_.request(now_);
    if (!request) return "";
    EXPECT_EQ(request->arguments, Json::parse(R"({"id": "s1"})"));
    session_.sent(++number_, now_);
    return request->command;
  }
  void answer(const std::string& json) { session_.on_reply({number_, Json::parse(json)}, now_); }
  void refuse(const char* error_class) {
    session_.on_reply({number_, ControlError{error_class, "why"}}, now_);
  }
  void event(const std::string& name, const std::string& data = R"({"id": "s1", "address": "192.0.2.1"})") {
    session_.on_event({name, Json::parse(data)});
  }
  uint64_t now_ = 1000;
  uint64_t number_ = 10;
  RemoteSession session_{"s1", 4444, 500};
};

TEST_F(RemoteSessionTest, asks_at_once_and_then_in_its_rhythm) {
  EXPECT_EQ(ask(), "query-session");
  EXPECT_EQ(ask(), "");  // one at a time
  answer(R"({"id": "s1", "state": "preparing", "progress": "a line"})");
  EXPECT_EQ(session_.take_progress(), "a line");
  EXPECT_EQ(session_.take_progress(), std::nullopt);
  EXPECT_EQ(ask(), "");
  EXPECT_EQ(session_.due_ms(now_), now_ + 500);
  now_ += 500;
  EXPECT_EQ(ask(), "query-session");
}

TEST_F(RemoteSessionTest, an_event_of_its_own_makes_it_look_at_once) {
  (void)ask();
  answer(R"({"state": "preparing"})");
  event("COMPLETED", R"({"id": "s2"})");
  EXPECT_EQ(ask(), "");
  event("COMPLETED", "7");
  EXPECT_EQ(ask(), "");
  event("ROUND");
  EXPECT_EQ(ask(), "query-session");
}

TEST_F(RemoteSessionTest, it_is_ready_once_however_that_is_heard) {
  event("READY");
  EXPECT_EQ(session_.take_ready(), "ready: listening on 192.0.2.1 port 4444");
  event("READY");
  (void)ask();
  answer(R"({"state": "ready"})");
  EXPECT_EQ(session_.take_ready(), std::nullopt);
  RemoteSession other("s1", 4444, 500);
  (void)other.request(0);
  other.sent(1, 0);
  other.on_reply({1, Json::parse(R"({"state": "precopy"})")}, 0);
  EXPECT_EQ(other.take_ready(), "ready: listening on port 4444");
}

TEST_F(RemoteSessionTest, one_that_fails_before_a_source_can_connect_was_never_ready) {
  (void)ask();
  answer(R"({"state": "preparing"})");
  now_ += 500;
  (void)ask();
  answer(R"({"state": "device-state"})");  // it gives back what it took
  EXPECT_EQ(session_.take_ready(), std::nullopt);
  now_ += 500;
  (void)ask();
  answer(R"({"state": "done", "outcome": "failed", "exit-status": 2,
             "summary": "failed: io: unidentified: byte 0: host: no memory",
             "report": {"error": {"text": "no memory"}}})");
  EXPECT_EQ(session_.take_ready(), std::nullopt);
  EXPECT_EQ(session_.exit_status(), 2);
  EXPECT_EQ(session_.summary(), "no memory");
}

TEST_F(RemoteSessionTest, warnings_are_told_once_each) {
  for (const char* const json :
       {R"({"warnings": ["a"]})", R"({"warnings": ["a", "b"]})", R"({"warnings": ["a", "b"]})"}) {
    (void)ask();
    answer(json);
    now_ += 500;
  }
  EXPECT_EQ(session_.take_warning(), "warning: a");
  EXPECT_EQ(session_.take_warning(), "warning: b");
  EXPECT_EQ(session_.take_warning(), std::nullopt);
}

TEST_F(RemoteSessionTest, every_signal_is_told_also_while_a_question_is_under_way) {
  (void)ask();
  session_.on_signal();
  session_.on_signal();
  EXPECT_EQ(session_.due_ms(now_), now_);
  EXPECT_EQ(ask(), "session-cancel");
  EXPECT_EQ(ask(), "session-cancel");
  EXPECT_EQ(ask(), "");
  answer(R"({"answer": "drain", "text": "the guest is in transit"})");
  EXPECT_EQ(session_.take_warning(), "the guest is in transit");
  EXPECT_FALSE(session_.over());
}

TEST_F(RemoteSessionTest, the_end_is_what_the_daemon_says) {
  (void)ask();
  answer(R"({"state": "done", "outcome": "unsure", "exit-status": 3, "summary": "ask the source",
             "report": {"format": 1}})");
  EXPECT_TRUE(session_.over());
  EXPECT_EQ(session_.exit_status(), 3);
  EXPECT_EQ(session_.outcome(), "unsure");
  EXPECT_EQ(session_.summary(), "ask the source");
  EXPECT_EQ(session_.report()["format"], 1);
  EXPECT_EQ(ask(), "");
}

TEST_F(RemoteSessionTest, a_daemon_that_does_not_know_it_any_more_was_started_anew) {
  (void)ask();
  answer(R"({"state": "precopy"})");
  now_ += 500;
  (void)ask();
  refuse(control_class::kNotFound);
  EXPECT_TRUE(session_.over());
  EXPECT_EQ(session_.exit_status(), 1);
  EXPECT_NE(session_.summary().find("ask it (query-migrate)"), std::string::npos);
}

TEST_F(RemoteSessionTest, another_error_is_told_and_it_goes_on) {
  (void)ask();
  refuse(control_class::kGeneric);
  EXPECT_FALSE(session_.over());
  EXPECT_EQ(session_.take_warning(), "warning: why");
  now_ += 500;
  EXPECT_EQ(ask(), "query-session");
  session_.on_reply({99, Json::object()}, now_);  // nobody asked that
  EXPECT_EQ(ask(), "");
}

TEST_F(RemoteSessionTest, a_daemon_that_hangs_is_told_about_once) {
  (void)ask();
  EXPECT_EQ(session_.due_ms(now_), now_ + 10'000);
  now_ += 10'000;
  EXPECT_EQ(ask(), "");
  EXPECT_NE(session_.take_warning()->find("has not answered for 10 s"), std::string::npos);
  now_ += 20'000;
  EXPECT_EQ(ask(), "");
  EXPECT_EQ(session_.take_warning(), std::nullopt);
  EXPECT_GT(session_.due_ms(now_), now_);
}

TEST_F(RemoteSessionTest, answers_of_another_form_do_no_harm) {
  for (const char* const json :
       {"7", "null", "[]", R"({"state": 1, "progress": {}, "warnings": "x", "exit-status": "0"})",
        R"({"warnings": [1, null]})"}) {
    (void)ask();
    answer(json);
    now_ += 500;
  }
  EXPECT_FALSE(session_.over());
  (void)ask();
  answer(R"({"exit-status": 77})");
  EXPECT_EQ(session_.exit_status(), 3);
}

TEST_F(RemoteSessionTest, what_is_lost_depends_on_how_far_it_had_come) {
  EXPECT_NE(session_.lost_text().find("nothing has begun"), std::string::npos);
  (void)ask();
  answer(R"({"state": "switchover"})");
  EXPECT_NE(session_.lost_text().find("switchover"), std::string::npos);
}

}  // namespace
}  // namespace migrx
