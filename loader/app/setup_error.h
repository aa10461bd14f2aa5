// What keeps a job from starting.
#pragma once

#include <stdexcept>

namespace migrx {

// The operator's fault, or the host's, in words that mend it. Thrown before anything of the guest is touched.
class SetupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace migrx
