// Writes the blocks that have no file to a directory, for tests and forensics.
#pragma once

#include <string>

#include "loader/session/block_table.h"

namespace migrx {

// The file name of a block: its idstr, with '/', '%', a leading '.' and all that is not printable ASCII
// written as in URLs (%2F); no two blocks have the same, and none that of the device state. Empty: it would
// be too long.
[[nodiscard]] std::string dump_name(const std::string& idstr);

// DIR/<dump_name(idstr)>, one file of mode 0600 per block without a file; where the name is too long,
// %block-<number in the list>. Empty, or what went wrong.
[[nodiscard]] std::string dump_blocks(const BlockTable& blocks, const std::string& directory);

// The directory exists afterwards and can be written to. Empty, or what to do.
[[nodiscard]] std::string prepare_dump_directory(const std::string& directory);

}  // namespace migrx
