// Something that may ask a job to end while it prepares: a signal, or a client's cancellation.
#pragma once

namespace migrx {

// What a job says that was ended so.
inline constexpr const char* kInterrupted = "ended by a signal before the source could connect";

class Interruption {
 public:
  virtual ~Interruption() = default;
  // The job is to end.
  [[nodiscard]] virtual bool pending() const = 0;
  // Readable when pending(), for those who wait in poll(2).
  [[nodiscard]] virtual int fd() const noexcept = 0;
};

}  // namespace migrx
