// What the repetitions of a row come to: a table for people, JSON for the report.
#pragma once

#include <string>
#include <vector>

#include "bench/pipeline/pipeline.h"
#include "bench/pipeline/stages.h"

namespace migrx::bench {

class Report {
 public:
  void print_heading() const;
  // results: at least one, without problems. Prints the row.
  void add(const PipelineOptions& row, const std::vector<PipelineResult>& results);
  // agent: "poll" or "loader". Prints the ladder.
  void add_stages(const char* agent, const StageOptions& options, const StageResult& result);
  // Throws std::runtime_error.
  void write_json(const std::string& path) const;

 private:
  std::string rows_;    // JSON objects, separated by commas
  std::string stages_;  // likewise
};

}  // namespace migrx::bench
