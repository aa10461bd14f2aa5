#include "loader/session/admission.h"

#include <algorithm>

namespace migrx {
namespace {

constexpr const char* kBoth =
    "nothing was loaded and both guests run on: migrate one at a time, or give each guest a -uuid of its own "
    "and --uuid here";

AdmissionAnswer answer(AdmissionVerdict verdict) {
  return {verdict, {}};
}

}  // namespace

AdmissionAnswer Admission::conflict(const StreamError& error) {
  ended_ = true;
  return {AdmissionVerdict::conflict, error};
}

bool Admission::may_be_refused(const Main& main) const {
  if (refused_at_ns_ == 0 || proven(main)) return false;
  return main.who.opened_ns == 0 || refused_opened_ns_ == 0 || main.who.opened_ns < refused_opened_ns_;
}

bool Admission::suspicious(const Main& main, uint64_t now_ns) const {
  return may_be_refused(main) && now_ns - refused_at_ns_ <= kSuspicionNs;
}

bool Admission::is_anothers(const Main& main, uint64_t now_ns) const {
  return expected_ && here_.load(std::memory_order_relaxed) == 0 && may_be_refused(main) &&
         !suspicious(main, now_ns) && refused_address_ == main.who.address;
}

void Admission::forget_main() {
  main_.reset();
  gathered_at_ns_ = 0;
  gathered_.store(false, std::memory_order_release);
  heard_all_ = false;
  main_connection_.store(nullptr, std::memory_order_relaxed);
  if (here_.load(std::memory_order_relaxed) == 0) address_.set(std::nullopt);
}

// All are here. A main whose own channels may have been refused waits: its source is about to give up.
void Admission::settle(uint64_t now_ns) {
  if (!main_ || here_.load(std::memory_order_relaxed) != channels_) return;
  if (gathered_at_ns_ == 0) gathered_at_ns_ = now_ns;
  gathered_.store(looks_, std::memory_order_release);
  const bool all_spoke = !looks_ || heard_all_ || now_ns - gathered_at_ns_ > kPatienceNs;
  if (all_spoke && !suspicious(*main_, now_ns)) complete_.store(true, std::memory_order_release);
}

void Admission::heard_all(uint64_t silent_since_ns) {
  const std::lock_guard lock(mutex_);
  // The next turn of main settles it.
  if (gathered_at_ns_ != 0) heard_all_ = silent_since_ns >= last_opened_ns_;
}

AdmissionAnswer Admission::take_main(const Main& main, uint64_t now_ns) {
  main_ = main;
  main_connection_.store(main.who.connection, std::memory_order_relaxed);
  address_.set(main.who.address);
  settle(now_ns);
  return answer(complete() ? AdmissionVerdict::admitted : AdmissionVerdict::waits);
}

AdmissionAnswer Admission::main(const Applicant& who, const std::optional<MultifdUuid>& uuid,
                                uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  const AdmissionAnswer result = judge_main(who, uuid, now_ns);
  if (result.verdict == AdmissionVerdict::stranger && !is_stranger(who.address))
    rivals_.fetch_add(1, std::memory_order_relaxed);
  return result;
}

AdmissionAnswer Admission::judge_main(const Applicant& who, const std::optional<MultifdUuid>& uuid,
                                      uint64_t now_ns) {
  if (ended_) return answer(AdmissionVerdict::stranger);
  if (expected_ && uuid && uuid != expected_) return answer(AdmissionVerdict::stranger);
  if (complete()) return late_main(who, uuid);
  const Main main{who, uuid};
  if (is_stranger(who.address)) {
    // A main channel that has shown nothing does not keep out one that has.
    const bool displaces = proven(main) && here_.load(std::memory_order_relaxed) == 0 && !proven(*main_);
    return displaces ? take_main(main, now_ns) : answer(AdmissionVerdict::stranger);
  }
  if (uuid && uuid_ && uuid != uuid_)
    return conflict(make_error(ErrorClass::mismatch, 0, "main channel: uuid",
                               "main and the multifd channels belong to two guests; %s", kBoth));
  if (main_) return second_main(main, now_ns);
  return take_main(main, now_ns);
}

AdmissionAnswer Admission::second_main(const Main& second, uint64_t now_ns) {
  if (proven(*main_) != proven(second))
    return proven(second) ? take_main(second, now_ns) : answer(AdmissionVerdict::stranger);
  if (suspicious(*main_, now_ns) != suspicious(second, now_ns))
    return suspicious(second, now_ns) ? answer(AdmissionVerdict::stranger) : take_main(second, now_ns);
  return conflict(make_error(ErrorClass::mismatch, 0, "main channel",
                             "a second source began from the same host before all channels of the first were "
                             "here, and nothing tells them apart; %s",
                             kBoth));
}

// All are here, so this is a stranger, unless it connected before the last of them did and only spoke later.
bool Admission::came_before(const Applicant& who) const {
  return channels_ > 0 && address_.get() == who.address && who.opened_ns != 0 &&
         who.opened_ns < last_opened_ns_;
}

AdmissionAnswer Admission::late_main(const Applicant& who, const std::optional<MultifdUuid>& uuid) {
  const bool told_apart = (main_->uuid && main_->uuid == uuid_) || (uuid && uuid != uuid_);
  if (told_apart || !came_before(who)) return answer(AdmissionVerdict::stranger);
  return conflict(
      make_error(ErrorClass::mismatch, 0, "main channel",
                 "a second source from the same host had connected before all channels of the first "
                 "were here, and some may be its own: both guests run on, migrate one at a time"));
}

AdmissionAnswer Admission::again(const Applicant& who, uint64_t now_ns) {
  if (!complete()) {
    const std::lock_guard lock(mutex_);
    if (!complete()) settle(now_ns);
    if (!main_ || main_->who.connection != who.connection) return answer(AdmissionVerdict::stranger);
    if (!complete() && is_anothers(*main_, now_ns)) {
      forget_main();
      return answer(AdmissionVerdict::stranger);
    }
    return answer(complete() ? AdmissionVerdict::admitted : AdmissionVerdict::waits);
  }
  const std::lock_guard lock(mutex_);
  return answer(main_->who.connection == who.connection && !ended_ ? AdmissionVerdict::admitted
                                                                   : AdmissionVerdict::stranger);
}

AdmissionAnswer Admission::left(const Applicant& who, bool orderly) {
  const std::lock_guard lock(mutex_);
  if (!main_ || main_->who.connection != who.connection || complete() || ended_)
    return answer(AdmissionVerdict::stranger);
  if (orderly && !may_be_refused(*main_)) return answer(AdmissionVerdict::waits);
  forget_main();
  // Where the guest is known, its channels tell whether it was here.
  if (expected_) return answer(AdmissionVerdict::stranger);
  return conflict(make_error(ErrorClass::truncated, 0, "main channel",
                             "closed before all multifd channels were here: the source was cancelled, or has "
                             "failed"));
}

// All are here.
AdmissionAnswer Admission::late_channel(const Applicant& who, const MultifdInit& init) {
  if (address_.get() != who.address || (uuid_ && *uuid_ != init.uuid))
    return answer(AdmissionVerdict::stranger);
  if (came_before(who)) return init.id.number() >= channels_ ? conflict(too_many(init.id)) : twice(init);
  surplus_.fetch_add(1, std::memory_order_relaxed);
  surplus_id_.store(init.id.number(), std::memory_order_relaxed);
  const uint64_t last_ns = std::max(last_opened_ns_, main_->who.opened_ns);
  const bool close = who.opened_ns == 0 || who.opened_ns <= last_ns + kConnectingNs;
  return answer(close ? AdmissionVerdict::surplus : AdmissionVerdict::stranger);
}

StreamError Admission::too_many(MultifdId id) const noexcept {
  return make_error_values(
      ErrorClass::mismatch, 0, "multifd channel: count", uint64_t{id.number()} + 1, channels_,
      channels_ == 0 ? "the source uses multifd: give --multifd-channels its number, or turn "
                       "the capability multifd off there"
                     : "the source opens more channels than --multifd-channels says: make "
                       "both equal (parameter multifd-channels at the source)");
}

AdmissionAnswer Admission::twice(const MultifdInit& init) {
  return conflict(make_error(ErrorClass::mismatch, 0, "multifd init packet: id",
                             "a second channel with id %u, so two sources migrate to this port; %s",
                             init.id.number(), kBoth));
}

AdmissionAnswer Admission::channel(const Applicant& who, const MultifdInit& init, uint64_t now_ns) {
  const std::lock_guard lock(mutex_);
  if (ended_) return answer(AdmissionVerdict::stranger);
  if (complete()) return late_channel(who, init);
  if (expected_ && init.uuid != *expected_) {
    refused_at_ns_ = now_ns;
    refused_opened_ns_ = who.opened_ns;
    refused_address_ = who.address;
    return answer(AdmissionVerdict::stranger);
  }
  if (is_stranger(who.address)) {
    // The right uuid weighs more than a main channel that has shown none.
    if (!expected_ || here_.load(std::memory_order_relaxed) > 0 || !main_ || proven(*main_))
      return answer(AdmissionVerdict::stranger);
    forget_main();
  }
  const std::optional<MultifdUuid>& guest = uuid_ ? uuid_ : main_ ? main_->uuid : uuid_;
  if (guest && *guest != init.uuid)
    return conflict(make_error(ErrorClass::mismatch, 0, "multifd init packet: uuid",
                               "channels of two guests came before either was complete; %s", kBoth));
  // QEMU (migration/multifd.c, multifd_recv_initial_packet) lets id == channels pass; it cannot come from a
  // source that is configured alike.
  if (init.id.number() >= channels_) return conflict(too_many(init.id));
  if (present_[init.id.number()]) return twice(init);
  uuid_ = init.uuid;
  present_[init.id.number()] = true;
  here_.fetch_add(1, std::memory_order_relaxed);
  last_opened_ns_ = std::max(last_opened_ns_, who.opened_ns);
  address_.set(who.address);
  settle(now_ns);
  return answer(AdmissionVerdict::admitted);
}

}  // namespace migrx
