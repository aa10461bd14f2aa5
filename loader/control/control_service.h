// What a control socket asks of whoever does the work.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "loader/control/control_peer.h"
#include "numa/descriptor.h"

namespace migrx {

struct ControlRequest {
  std::string command;
  nlohmann::json arguments;  // an object
  // Files of hugetlbfs or tmpfs that came with the request, in their order; the service may take them.
  std::vector<Descriptor> files;
  ControlPeer peer;
};

// QMP's manner: a class for programs, a sentence for people that says what to do.
struct ControlError {
  std::string error_class;
  std::string sentence;
};

// Classes of errors. The first two are QMP's.
namespace control_class {
inline constexpr const char* kGeneric = "GenericError";
inline constexpr const char* kCommandNotFound = "CommandNotFound";
inline constexpr const char* kMalformed = "MalformedRequest";  // no request of this protocol
inline constexpr const char* kArguments = "InvalidArguments";  // of a command that exists
inline constexpr const char* kNotPermitted = "NotPermitted";   // to this peer
inline constexpr const char* kNotFound = "SessionNotFound";    // an id that is nobody's
inline constexpr const char* kNoRoom = "NoRoom";               // a budget is used up
inline constexpr const char* kShuttingDown = "ShuttingDown";   // no new session is taken
}  // namespace control_class

using ControlAnswer = std::variant<nlohmann::json, ControlError>;

class ControlService {
 public:
  virtual ~ControlService() = default;
  // Called from ControlSocket::do_work(); must not block. What it throws is answered as an error.
  virtual ControlAnswer execute(ControlRequest& request) = 0;
};

}  // namespace migrx
