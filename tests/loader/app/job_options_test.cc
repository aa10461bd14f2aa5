#include "loader/app/job_options.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "loader/app/report.h"
#include "loader/app/setup_error.h"
#include "loader/app/terminal.h"

namespace migrx {
namespace {

Report complete() {
  Report report;
  report.command = "receive";
  report.outcome = "complete";
  return report;
}

TEST(JobOutcome, a_report_that_cannot_be_written_goes_to_stderr_and_the_status_stays) {
  StandardTerminal terminal(/*quiet=*/true);
  JobOptions options;
  options.report = "/nonexistent/report.json";
  testing::internal::CaptureStderr();
  EXPECT_EQ(tell_outcome(options, complete(), terminal, 0), 0);
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("cannot write the report"), std::string::npos) << told;
  EXPECT_NE(told.find("\"outcome\": \"complete\""), std::string::npos) << told;
}

TEST(JobOutcome, a_full_disk_leaves_no_half_report_behind) {
  StandardTerminal terminal(true);
  JobOptions options;
  options.report = "/dev/full";
  testing::internal::CaptureStderr();
  EXPECT_EQ(tell_outcome(options, complete(), terminal, 0), 0);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("outcome"), std::string::npos);
}

TEST(JobOptionsCheck, a_report_into_a_missing_folder_is_refused_before_anything_begins) {
  JobOptions options;
  options.report = "/nonexistent/report.json";
  EXPECT_THROW((void)prepare_job(options), SetupError);
  options.report = std::filesystem::temp_directory_path().string();
  EXPECT_THROW((void)prepare_job(options), SetupError);
  options.report = (std::filesystem::temp_directory_path() / "migrx-report.json").string();
  EXPECT_NO_THROW((void)prepare_job(options));
}

}  // namespace
}  // namespace migrx
