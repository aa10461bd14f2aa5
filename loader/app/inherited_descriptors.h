// Descriptors that this process was started with. One that a command line names and that was not passed on
// (sudo closes all above 2) would be a file that migrx opens later, guest RAM among them.
#pragma once

#include <string>

#include "loader/app/terminal.h"

namespace migrx {

// To be called before anything is opened: the standard descriptors that are closed become /dev/null, so that
// no file of ours has a number to which a message goes.
void hold_standard_descriptors() noexcept;

// To be called before anything is opened that could have the number. Empty: fd is below 0, or was passed on
// and can be written to; otherwise what to do.
[[nodiscard]] std::string ready_fd_problem(int fd);

// Says that the source may connect, to the operator and to whoever reads fd, whose end comes with the line.
// fd below 0: nobody does.
void tell_ready(const std::string& line, int fd, Terminal& terminal);

}  // namespace migrx
