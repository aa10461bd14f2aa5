// The exception that keeps a job from starting.
#pragma once

#include <stdexcept>

namespace migrx {

// A fault of the operator or of the host; the text says how to mend it. Thrown before anything of the guest
// is touched.
class SetupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace migrx
