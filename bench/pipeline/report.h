// What the repetitions of a row come to: a table for people, JSON for the report.
#pragma once

#include <string>
#include <vector>

#include "bench/pipeline/pipeline.h"

namespace migrx::bench {

class Report {
 public:
  void print_heading() const;
  // results: at least one, without problems. Prints the row.
  void add(const PipelineOptions& row, const std::vector<PipelineResult>& results);
  // Throws std::runtime_error.
  void write_json(const std::string& path) const;

 private:
  std::string rows_;  // JSON objects, separated by commas
};

}  // namespace migrx::bench
