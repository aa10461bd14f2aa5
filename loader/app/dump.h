// Writes the blocks that have no file to a directory, for tests and forensics.
#pragma once

#include <string>

#include "loader/session/block_table.h"

namespace migrx {

// DIR/<idstr with / replaced by _>, one file per block without a file. Empty, or what went wrong.
[[nodiscard]] std::string dump_blocks(const BlockTable& blocks, const std::string& directory);

// The directory exists afterwards and can be written to. Empty, or what to do.
[[nodiscard]] std::string prepare_dump_directory(const std::string& directory);

}  // namespace migrx
