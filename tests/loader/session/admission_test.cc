#include "loader/session/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace migrx {
namespace {

constexpr IpAddress kHere{Ipv4Address{0x0a4d0001}};
constexpr IpAddress kElsewhere{Ipv4Address{0x0a4d0009}};

MultifdUuid uuid_of(int guest) {
  MultifdUuid uuid{};
  if (guest != 0) uuid.fill(static_cast<std::byte>(guest));
  return uuid;
}
MultifdInit init_of(uint8_t id, int guest = 0) {
  return {uuid_of(guest), MultifdId{id}};
}

// Connections are told apart by their address in memory alone.
class AdmissionTest : public ::testing::Test {
 protected:
  Applicant who(const IpAddress& address = kHere, uint64_t opened_ns = 0) {
    return {reinterpret_cast<const Handoff*>(&places_[used_++]), address, opened_ns};
  }
  std::array<char, 64> places_{};
  std::size_t used_ = 0;
};

TEST_F(AdmissionTest, main_waits_until_all_channels_are_here) {
  Admission admission(2);
  const Applicant main = who();
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(), init_of(1), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(main, 1).verdict, AdmissionVerdict::waits);
  EXPECT_FALSE(admission.complete());
  EXPECT_EQ(admission.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_TRUE(admission.complete());
  EXPECT_EQ(admission.again(main, 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.multifd_here(), 2U);
}

TEST_F(AdmissionTest, main_that_comes_last_is_admitted_at_once) {
  Admission admission(1);
  EXPECT_EQ(admission.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.main(who(), {}, 1).verdict, AdmissionVerdict::admitted);
  EXPECT_TRUE(admission.complete());
}

TEST_F(AdmissionTest, once_all_are_here_whoever_else_comes_is_a_stranger) {
  Admission admission(1);
  EXPECT_EQ(admission.main(who(kHere, 10), {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 20), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.main(who(kHere, 30), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.rivals(), 1U);
  EXPECT_EQ(admission.channel(who(kHere, 40), init_of(0), 1).verdict, AdmissionVerdict::surplus);
  EXPECT_EQ(admission.channel(who(kHere, 0), init_of(0), 1).verdict, AdmissionVerdict::surplus);
  EXPECT_EQ(admission.channel(who(kHere, 21 + Admission::kConnectingNs), init_of(0), 1).verdict,
            AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kHere, 40), init_of(0, 7), 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kHere, 40), init_of(5), 1).verdict, AdmissionVerdict::surplus);
  EXPECT_EQ(admission.channel(who(kElsewhere, 40), init_of(5), 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(kElsewhere, 30), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.rivals(), 1U) << "what comes from another address has nothing to do with the source's";
}

TEST_F(AdmissionTest, a_second_main_before_that_ends_both) {
  Admission admission(1);
  const Applicant first = who();
  EXPECT_EQ(admission.main(first, {}, 1).verdict, AdmissionVerdict::waits);
  const AdmissionAnswer answer = admission.main(who(), {}, 1);
  EXPECT_EQ(answer.verdict, AdmissionVerdict::conflict);
  EXPECT_NE(answer.error.message().find("--uuid"), std::string::npos) << answer.error.message();
  EXPECT_EQ(admission.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::stranger);
  EXPECT_FALSE(admission.complete());
}

TEST_F(AdmissionTest, so_does_a_second_uuid_or_an_id_twice) {
  Admission uuids(2);
  EXPECT_EQ(uuids.channel(who(), init_of(0, 7), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(uuids.channel(who(), init_of(1, 8), 1).verdict, AdmissionVerdict::conflict);
  Admission ids(2);
  EXPECT_EQ(ids.channel(who(), init_of(1), 1).verdict, AdmissionVerdict::admitted);
  const AdmissionAnswer answer = ids.channel(who(), init_of(1), 1);
  EXPECT_EQ(answer.verdict, AdmissionVerdict::conflict);
  EXPECT_NE(answer.error.message().find("id 1"), std::string::npos);
}

TEST_F(AdmissionTest, too_many_channels_are_named_with_both_numbers) {
  Admission admission(2);
  const AdmissionAnswer answer = admission.channel(who(), init_of(2), 1);
  EXPECT_EQ(answer.verdict, AdmissionVerdict::conflict);
  EXPECT_EQ(answer.error.found, 3U);
  EXPECT_EQ(answer.error.allowed, 2U);
  // The last of them: main and all that were expected are here.
  Admission full(1);
  EXPECT_EQ(full.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(full.main(who(), {}, 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(full.channel(who(), init_of(1), 1).verdict, AdmissionVerdict::surplus);
  EXPECT_EQ(full.surplus(), 1U);
  EXPECT_EQ(full.surplus_id(), MultifdId{1});
}

TEST_F(AdmissionTest, without_multifd_the_first_main_is_all_there_is) {
  Admission admission(0);
  EXPECT_EQ(admission.main(who(kHere, 20), {}, 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.main(who(kHere, 10), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kHere, 20 + Admission::kConnectingNs), init_of(0), 1).verdict,
            AdmissionVerdict::surplus);
  EXPECT_EQ(admission.channel(who(kHere, 21 + Admission::kConnectingNs), init_of(0), 1).verdict,
            AdmissionVerdict::stranger);
  EXPECT_EQ(admission.surplus(), 2U);
  Admission multifd_first(0);
  EXPECT_EQ(multifd_first.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::conflict);
}

TEST_F(AdmissionTest, who_bears_another_uuid_than_the_known_one_is_a_stranger_from_the_first_byte) {
  for (std::size_t bit = 0; bit < 128; ++bit) {
    Admission admission(1, uuid_of(7));
    MultifdInit other = init_of(0, 7);
    other.uuid[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_EQ(admission.channel(who(), other, 1).verdict, AdmissionVerdict::stranger) << bit;
    EXPECT_EQ(admission.main(who(), other.uuid, 1).verdict, AdmissionVerdict::stranger) << bit;
    EXPECT_FALSE(admission.is_stranger(kElsewhere));  // nobody's place has been taken
    EXPECT_EQ(admission.channel(who(kElsewhere), init_of(0, 7), 1).verdict, AdmissionVerdict::admitted)
        << bit;
    used_ = 0;
  }
}

TEST_F(AdmissionTest, main_with_the_known_uuid_takes_the_place_of_one_that_shows_none) {
  Admission admission(1, uuid_of(7));
  const Applicant other = who(kElsewhere);
  EXPECT_EQ(admission.main(other, {}, 1).verdict, AdmissionVerdict::waits);
  const Applicant ours = who();
  EXPECT_EQ(admission.main(ours, uuid_of(7), 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.again(other, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(), init_of(0, 7), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(ours, 1).verdict, AdmissionVerdict::admitted);
}

TEST_F(AdmissionTest, channels_with_the_known_uuid_turn_out_another_hosts_main) {
  Admission admission(1, uuid_of(7));
  const Applicant other = who(kElsewhere);
  EXPECT_EQ(admission.main(other, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(), init_of(0, 7), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(other, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(), {}, 1).verdict, AdmissionVerdict::admitted);
}

TEST_F(AdmissionTest, main_of_one_guest_and_channels_of_another_do_not_fit) {
  Admission admission(1);
  EXPECT_EQ(admission.main(who(), uuid_of(7), 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(), init_of(0, 8), 1).verdict, AdmissionVerdict::conflict);
  Admission other_way(1);
  EXPECT_EQ(other_way.channel(who(), init_of(0, 8), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(other_way.main(who(), uuid_of(7), 1).verdict, AdmissionVerdict::conflict);
}

TEST_F(AdmissionTest, other_hosts_disturb_nobody) {
  Admission admission(2);
  EXPECT_EQ(admission.channel(who(kHere), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.channel(who(kElsewhere), init_of(0), 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kElsewhere), init_of(7, 7), 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(kElsewhere), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(kHere), {}, 1).verdict, AdmissionVerdict::waits);
}

// Main of a guest without multifd came while another's channels did. Their own main, which connected before
// them, has not spoken yet.
TEST_F(AdmissionTest, a_main_that_connected_before_the_channels_and_speaks_late_is_a_conflict) {
  Admission admission(1);
  EXPECT_EQ(admission.main(who(kHere, 5), {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 20), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_TRUE(admission.complete());
  EXPECT_EQ(admission.main(who(kHere, 21), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(kElsewhere, 10), {}, 1).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.main(who(kHere, 10), {}, 1).verdict, AdmissionVerdict::conflict);
}

// Channel 1 is one guest's, channel 0 and main are the other's.
TEST_F(AdmissionTest, so_is_a_channel_that_connected_before_the_last_of_those_that_were_taken) {
  Admission admission(2);
  EXPECT_EQ(admission.main(who(kHere, 5), {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 12), init_of(1), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.channel(who(kHere, 20), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_TRUE(admission.complete());
  EXPECT_EQ(admission.channel(who(kHere, 21), init_of(0), 1).verdict, AdmissionVerdict::surplus);
  EXPECT_EQ(admission.channel(who(kHere, 13), init_of(0), 1).verdict, AdmissionVerdict::conflict);
}

TEST_F(AdmissionTest, a_main_whose_channels_were_refused_is_not_believed_until_its_source_has_gone) {
  Admission admission(1, uuid_of(7));
  const Applicant other = who(kHere, 10);
  EXPECT_EQ(admission.main(other, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 11), init_of(0, 8), 2).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kHere, 21), init_of(0, 7), 3).verdict, AdmissionVerdict::admitted);
  EXPECT_FALSE(admission.complete());
  EXPECT_EQ(admission.again(other, 4).verdict, AdmissionVerdict::waits);
  // The right one takes its place.
  EXPECT_EQ(admission.main(who(kHere, 20), {}, 5).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(other, 6).verdict, AdmissionVerdict::stranger);
}

TEST_F(AdmissionTest, suspicion_ends_when_the_one_it_was_about_must_have_gone) {
  Admission admission(1, uuid_of(7));
  const Applicant main = who(kHere, 10);
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 11), init_of(0, 8), 2).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.channel(who(kHere, 12), init_of(0, 7), 3).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(main, 2 + Admission::kSuspicionNs).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.again(main, 3 + Admission::kSuspicionNs).verdict, AdmissionVerdict::admitted);
}

// Found with QEMU 7.2: its channels were reset for their uuid, and main was left alone. Two or three of forty
// such sources ended by an assertion of their own, others could never migrate again.
TEST_F(AdmissionTest, a_main_whose_channels_alone_came_and_were_refused_is_refused_too) {
  const auto begin = [](Admission& admission, const Applicant& main, const Applicant& channel) {
    EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
    EXPECT_EQ(admission.channel(channel, init_of(0, 8), 2).verdict, AdmissionVerdict::stranger);
    EXPECT_EQ(admission.again(main, 2 + Admission::kSuspicionNs).verdict, AdmissionVerdict::waits);
  };
  constexpr uint64_t kLater = 3 + Admission::kSuspicionNs;
  const Applicant main = who(kHere, 10);
  Admission wrong(2, uuid_of(7));
  begin(wrong, main, who(kHere, 11));
  EXPECT_EQ(wrong.again(main, kLater).verdict, AdmissionVerdict::stranger);
  EXPECT_FALSE(wrong.main_here());
  EXPECT_EQ(wrong.main(who(kElsewhere, 20), {}, kLater).verdict, AdmissionVerdict::waits);
  // A channel of the right guest has come.
  Admission both(2, uuid_of(7));
  begin(both, main, who(kHere, 11));
  EXPECT_EQ(both.channel(who(kHere, 12), init_of(0, 7), 3).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(both.again(main, kLater).verdict, AdmissionVerdict::waits);
  // The refused channel is another host's.
  Admission elsewhere(2, uuid_of(7));
  begin(elsewhere, main, who(kElsewhere, 11));
  EXPECT_EQ(elsewhere.again(main, kLater).verdict, AdmissionVerdict::waits);
  // It connected before this main, so it is none of its channels.
  Admission before(2, uuid_of(7));
  begin(before, main, who(kHere, 9));
  EXPECT_EQ(before.again(main, kLater).verdict, AdmissionVerdict::waits);
}

TEST_F(AdmissionTest, a_main_that_breaks_off_while_it_waits_was_the_source_unless_the_guest_is_known) {
  Admission unknown(1);
  const Applicant main = who();
  EXPECT_EQ(unknown.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(unknown.left(main, false).error.error_class, ErrorClass::truncated);
  Admission known(1, uuid_of(7));
  EXPECT_EQ(known.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(known.left(main, false).verdict, AdmissionVerdict::stranger);
  EXPECT_FALSE(known.main_here());
  EXPECT_EQ(known.main(who(kElsewhere), {}, 1).verdict, AdmissionVerdict::waits);
}

// Found by the simulation, seed 216: without a return path all of it is on its way before a channel has come.
TEST_F(AdmissionTest, a_main_that_closes_in_good_order_may_be_whole) {
  Admission admission(1);
  const Applicant main = who();
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.left(main, true).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(), init_of(0), 1).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(main, 1).verdict, AdmissionVerdict::admitted);
}

TEST_F(AdmissionTest, unless_channels_that_may_be_its_own_were_refused) {
  Admission admission(1, uuid_of(7));
  const Applicant main = who(kHere, 10);
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 11), init_of(0, 8), 2).verdict, AdmissionVerdict::stranger);
  EXPECT_EQ(admission.left(main, true).verdict, AdmissionVerdict::stranger);
  EXPECT_FALSE(admission.main_here());
}

TEST_F(AdmissionTest, main_waits_for_peers_that_connected_before_the_last_channel_and_are_silent) {
  Admission admission(1, std::nullopt, true);
  const Applicant main = who(kHere, 10);
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_FALSE(admission.gathered());
  EXPECT_EQ(admission.channel(who(kHere, 30), init_of(0), 2).verdict, AdmissionVerdict::admitted);
  EXPECT_TRUE(admission.gathered());
  EXPECT_EQ(admission.again(main, 3).verdict, AdmissionVerdict::waits);
  admission.heard_all(29);
  EXPECT_EQ(admission.again(main, 4).verdict, AdmissionVerdict::waits);
  admission.heard_all(30);
  EXPECT_EQ(admission.again(main, 5).verdict, AdmissionVerdict::admitted);
  EXPECT_FALSE(admission.gathered());
}

TEST_F(AdmissionTest, a_peer_that_never_speaks_holds_main_up_for_two_seconds_at_most) {
  Admission admission(1, std::nullopt, true);
  const Applicant main = who(kHere, 10);
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.channel(who(kHere, 30), init_of(0), 2).verdict, AdmissionVerdict::admitted);
  admission.heard_all(20);
  EXPECT_EQ(admission.again(main, 2 + Admission::kPatienceNs).verdict, AdmissionVerdict::waits);
  EXPECT_EQ(admission.again(main, 3 + Admission::kPatienceNs).verdict, AdmissionVerdict::admitted);
}

TEST_F(AdmissionTest, what_was_heard_before_all_were_here_says_nothing) {
  Admission admission(1, std::nullopt, true);
  const Applicant main = who(kHere, 10);
  EXPECT_EQ(admission.main(main, {}, 1).verdict, AdmissionVerdict::waits);
  admission.heard_all(UINT64_MAX);
  EXPECT_EQ(admission.channel(who(kHere, 30), init_of(0), 2).verdict, AdmissionVerdict::admitted);
  EXPECT_EQ(admission.again(main, 3).verdict, AdmissionVerdict::waits);
}

TEST_F(AdmissionTest, without_channels_there_is_nobody_to_wait_for) {
  Admission admission(0, std::nullopt, true);
  EXPECT_EQ(admission.main(who(kHere, 10), {}, 1).verdict, AdmissionVerdict::admitted);
}

// Two guests of one host migrate to the same port at the same time. Each connects main first and its channels
// then; sources since 9.0 speak on main when all channels are connected. Whoever is refused notices after a
// while, and closes. Whatever the order: nobody's main gets another's channels for good.
struct Guest {
  int number = 0;  // 1, 2
  int uuid = 0;
  uint32_t channels = 0;
  bool main_last = false;  // it speaks when all channels are connected
  bool validate = false;   // main bears the uuid
};
struct Speech {
  int guest;
  int channel;  // -1: main
  uint64_t opened_ns;
  uint64_t at_ns;
};

std::vector<Speech> speeches_of(const Guest& guest, uint64_t start_ns, std::mt19937& random) {
  std::vector<Speech> out;
  const auto some = [&random](uint64_t most) { return 1 + random() % most; };
  const uint64_t main_opened = start_ns;
  uint64_t last_opened = main_opened;
  for (uint32_t i = 0; i < guest.channels; ++i) {
    const uint64_t opened = main_opened + some(1000);
    last_opened = std::max(last_opened, opened);
    out.push_back({guest.number, static_cast<int>(i), opened, opened + some(1000)});
  }
  out.push_back({guest.number, -1, main_opened, (guest.main_last ? last_opened : main_opened) + some(1000)});
  return out;
}

TEST_F(AdmissionTest, two_guests_in_any_order_never_share_a_migration) {
  uint32_t completed = 0;
  uint32_t ended = 0;
  for (uint32_t seed = 1; seed <= 20'000; ++seed) {
    std::mt19937 random(seed);
    Guest guests[2];
    const bool without_uuid = random() % 3 == 0;
    for (int i = 0; i < 2; ++i) {
      guests[i].number = i + 1;
      guests[i].uuid = without_uuid ? 0 : i + 1;
      guests[i].channels = random() % 4;
      guests[i].main_last = random() % 2 == 0;
      guests[i].validate = !without_uuid && random() % 4 == 0;
    }
    const uint32_t expected_channels = guests[0].channels;  // the first guest is the one that is meant
    const bool known = !without_uuid && random() % 2 == 0;
    Admission admission(expected_channels, known ? std::optional(uuid_of(1)) : std::nullopt);
    const uint64_t start[2] = {10'000, 10'000 + random() % 4000 - 2000};
    std::vector<Speech> all = speeches_of(guests[0], start[0], random);
    for (const Speech& speech : speeches_of(guests[1], start[1], random)) all.push_back(speech);
    std::stable_sort(all.begin(), all.end(),
                     [](const Speech& a, const Speech& b) { return a.at_ns < b.at_ns; });

    std::array<char, 16> places{};
    int waiting_main = 0;
    Applicant waiting{};
    int admitted_main = 0;
    uint32_t channels_of[3] = {};
    bool refused[3] = {};
    bool conflict = false;
    for (std::size_t i = 0; i < all.size() && !conflict; ++i) {
      const Speech& speech = all[i];
      const Guest& guest = guests[speech.guest - 1];
      const Applicant applicant{reinterpret_cast<const Handoff*>(&places[i]), kHere, speech.opened_ns};
      if (speech.channel < 0) {
        std::optional<MultifdUuid> uuid;
        if (guest.validate) uuid = uuid_of(guest.uuid);
        const AdmissionVerdict verdict = admission.main(applicant, uuid, speech.at_ns).verdict;
        conflict = verdict == AdmissionVerdict::conflict;
        refused[speech.guest] = refused[speech.guest] || verdict == AdmissionVerdict::stranger;
        if (verdict == AdmissionVerdict::waits) {
          waiting_main = speech.guest;
          waiting = applicant;
        }
        if (verdict == AdmissionVerdict::admitted) admitted_main = speech.guest;
      } else {
        const AdmissionVerdict verdict =
            admission
                .channel(applicant, init_of(static_cast<uint8_t>(speech.channel), guest.uuid), speech.at_ns)
                .verdict;
        conflict = verdict == AdmissionVerdict::conflict;
        refused[speech.guest] = refused[speech.guest] || verdict == AdmissionVerdict::stranger ||
                                verdict == AdmissionVerdict::surplus;
        if (verdict == AdmissionVerdict::admitted) ++channels_of[speech.guest];
      }
      if (waiting_main != 0 && admitted_main == 0 && !conflict) {
        const AdmissionVerdict verdict = admission.again(waiting, speech.at_ns).verdict;
        if (verdict == AdmissionVerdict::admitted) admitted_main = waiting_main;
        if (verdict == AdmissionVerdict::stranger) refused[waiting_main] = true;
        if (verdict != AdmissionVerdict::waits) waiting_main = 0;
      }
    }
    if (conflict) {
      ++ended;
      continue;
    }
    if (!admission.complete()) continue;
    ++completed;
    ASSERT_NE(admitted_main, 0) << seed;
    const int other = 3 - admitted_main;
    EXPECT_EQ(channels_of[other], 0U) << "seed " << seed << ": main of " << admitted_main;
    EXPECT_EQ(channels_of[admitted_main], expected_channels) << seed;
    // Where channels of its own were refused it had more than are expected: the session says so (surplus).
    if (refused[admitted_main]) {
      EXPECT_GT(admission.surplus(), 0U) << "seed " << seed;
    }
    // Known by its uuid, the guest that is meant is not taken for the other one.
    if (known && expected_channels > 0) {
      EXPECT_EQ(admitted_main, 1) << seed;
    }
  }
  EXPECT_GT(completed, 1000U);
  EXPECT_GT(ended, 1000U);
}

// Found by the simulation, seed 10156669: first bytes were lost, and the migration was over before they came
// again. So here everything after completion is too late. True: a foreign channel was taken.
bool takes_a_foreign_channel(uint32_t seed, bool looks) {
  constexpr uint64_t kRtoNs = 200'000'000;
  std::mt19937 random(seed);
  Guest guests[2];
  std::vector<Speech> all;
  for (int i = 0; i < 2; ++i) {
    guests[i] = {i + 1, 0, 2, random() % 2 == 0, false};
    for (Speech speech : speeches_of(guests[i], 10'000 + random() % 1000, random)) {
      for (int lost = 0; lost < 3 && random() % 3 == 0; ++lost) speech.at_ns += kRtoNs << lost;
      all.push_back(speech);
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Speech& a, const Speech& b) { return a.at_ns < b.at_ns; });
  Admission admission(2, std::nullopt, looks);
  std::array<char, 8> places{};
  int waiting_main = 0;
  Applicant waiting{};
  uint32_t channels_of[3] = {};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Speech& speech = all[i];
    const Applicant applicant{reinterpret_cast<const Handoff*>(&places[i]), kHere, speech.opened_ns};
    const AdmissionAnswer answer =
        speech.channel < 0
            ? admission.main(applicant, {}, speech.at_ns)
            : admission.channel(applicant, init_of(static_cast<uint8_t>(speech.channel)), speech.at_ns);
    if (answer.verdict == AdmissionVerdict::conflict) return false;
    if (speech.channel >= 0 && answer.verdict == AdmissionVerdict::admitted) ++channels_of[speech.guest];
    if (speech.channel < 0 && answer.verdict != AdmissionVerdict::stranger) {
      waiting_main = speech.guest;
      waiting = applicant;
    }
    uint64_t silent_since_ns = UINT64_MAX;
    for (std::size_t later = i + 1; later < all.size(); ++later)
      silent_since_ns = std::min(silent_since_ns, all[later].opened_ns);
    if (admission.gathered()) admission.heard_all(silent_since_ns);
    if (waiting_main != 0) (void)admission.again(waiting, speech.at_ns);
    if (admission.complete()) return channels_of[3 - waiting_main] > 0;
  }
  return false;
}

TEST_F(AdmissionTest, nor_when_first_bytes_are_lost_and_all_is_over_before_they_come_again) {
  uint32_t without = 0;
  for (uint32_t seed = 1; seed <= 20'000; ++seed) {
    EXPECT_FALSE(takes_a_foreign_channel(seed, true)) << seed;
    without += takes_a_foreign_channel(seed, false) ? 1U : 0U;
  }
  EXPECT_GT(without, 10U);
}

}  // namespace
}  // namespace migrx
