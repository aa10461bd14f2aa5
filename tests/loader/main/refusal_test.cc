// Everything the main channel refuses: with the class, the place and the words an operator needs.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "tests/loader/main/main_fixture.h"

namespace migrx {
namespace {

using test::MainRig;
using test::MainStreamBuilder;
using test::make_page;
using B = MainStreamBuilder;

struct Refusal {
  const char* name;
  ErrorClass error_class;
  const char* words;  // part of the message
  std::function<void(B&)> write;
  MainSettings settings{};
  bool jumps = false;  // a mapped-ram file: say at once that its position has been reached
};

// Fed whole and byte by byte, the same error at the same place.
void expect_refusals(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    B b;
    refusal.write(b);
    std::string first;
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}, std::size_t{7}}) {
      MainRig rig(refusal.settings);
      rig.reach_positions = refusal.jumps;
      ASSERT_EQ(ParseStatus::failed, rig.feed(b.bytes(), step)) << refusal.name;
      const std::string message = rig.channel.error().message();
      EXPECT_EQ(refusal.error_class, rig.channel.error().error_class) << refusal.name << ": " << message;
      EXPECT_NE(std::string::npos, message.find(refusal.words)) << refusal.name << ": " << message;
      EXPECT_EQ(ChannelName::main(), rig.channel.error().channel);
      EXPECT_LE(rig.channel.error().offset, b.size()) << refusal.name;
      if (first.empty()) first = message;
      EXPECT_EQ(first, message) << refusal.name;
      EXPECT_EQ(message, rig.channel.end_of_stream().message()) << "the first error stays";
    }
  }
}

B& begin(B& b) {
  return b.header().configuration("pc");
}
B& start(B& b) {
  return begin(b).ram_start({{"ram", 4 * kPageBytes, {}}});
}
B& part(B& b) {
  return start(b).ram_close().ram_part();
}
// Enough bytes behind a wrong one that a parser which overlooks it does not just wait for more.
B& more(B& b) {
  return b.raw(make_page(1)).raw(make_page(2));
}

TEST(Refusal, header) {
  expect_refusals({
      {"magic", ErrorClass::bad_stream, "not a migration stream",
       [](B& b) { more(b.be32(0x51455600).be32(3)); }},
      {"version 2", ErrorClass::unsupported, "found 2, allowed 3", [](B& b) { more(b.header(2)); }},
      {"version 4", ErrorClass::unsupported, "found 4, allowed 3", [](B& b) { more(b.header(4)); }},
  });
}

TEST(Refusal, configuration) {
  std::array<std::byte, 16> mine{};
  std::array<std::byte, 16> other{};
  other[3] = std::byte{1};
  expect_refusals({
      {"machine length 0", ErrorClass::bad_stream, "machine name length",
       [](B& b) { more(b.header().u8(7).be32(0)); }},
      {"machine length 256", ErrorClass::bad_stream, "found 256, allowed 255",
       [](B& b) { more(b.header().u8(7).be32(256)); }},
      {"machine with NUL", ErrorClass::bad_stream, "NUL",
       [](B& b) { more(b.header().configuration(std::string_view("pc\0x", 4))); }},
      {"unknown subsection", ErrorClass::unsupported, "configuration/secret",
       [](B& b) { more(begin(b).subsection("configuration/secret")); }},
      {"subsection version", ErrorClass::unsupported, "version 2",
       [](B& b) { more(begin(b).subsection("configuration/uuid", 2)); }},
      {"subsection twice", ErrorClass::bad_stream, "twice",
       [&](B& b) { more(begin(b).uuid(mine).uuid(mine)); }},
      {"page bits", ErrorClass::unsupported, "found 14, allowed 12",
       [](B& b) { more(begin(b).target_page_bits(14)); }},
      {"65 capabilities", ErrorClass::bad_stream, "found 65, allowed 64",
       [](B& b) { more(begin(b).subsection("configuration/capabilities").be32(65)); }},
      {"2^32-1 capabilities", ErrorClass::bad_stream, "allowed 64",
       [](B& b) { more(begin(b).subsection("configuration/capabilities").be32(0xffffffff)); }},
      {"unknown capability", ErrorClass::unsupported, "'foo'",
       [](B& b) { more(begin(b).capabilities({"foo"})); }},
      {"nameless capability", ErrorClass::unsupported, "unknown capability",
       [](B& b) { more(begin(b).capabilities({""})); }},
      {"x-ignore-shared", ErrorClass::unsupported, "turn that capability off at the source",
       [](B& b) {
         more(begin(b).capabilities({"xbzrle", "x-ignore-shared"}));
       }},
      {"mapped-ram on a socket", ErrorClass::mismatch, "mapped-ram",
       [](B& b) { more(begin(b).capabilities({"mapped-ram"})); }},
      {"mapped-ram missing",
       ErrorClass::mismatch,
       "did not announce it",
       [](B& b) { more(begin(b).open_return_path()); },
       {.mapped_ram = true}},
      {"another guest",
       ErrorClass::mismatch,
       "-uuid",
       [&](B& b) { more(begin(b).uuid(other)); },
       {.uuid = mine}},
  });
}

TEST(Refusal, commands) {
  const std::array<std::byte, 20> zeros{};
  const auto payload = [&](std::size_t n) { return std::span(zeros).first(n); };
  std::vector<Refusal> refusals = {
      {"command 0", ErrorClass::bad_stream, "MIG_CMD 0", [](B& b) { more(begin(b).command(0)); }},
      {"ping before the return path", ErrorClass::bad_stream, "before OPEN_RETURN_PATH",
       [](B& b) { more(begin(b).ping(1)); }},
      {"ping of 2 bytes", ErrorClass::bad_stream, "PING of length 2, expected 4",
       [&](B& b) { more(begin(b).open_return_path().command(2, payload(2))); }},
      {"return path of 1 byte", ErrorClass::bad_stream, "OPEN_RETURN_PATH of length 1",
       [&](B& b) { more(begin(b).command(1, payload(1))); }},
      {"advise of 8 bytes", ErrorClass::bad_stream, "POSTCOPY_ADVISE of length 8",
       [&](B& b) { more(begin(b).command(3, payload(8))); }},
      {"postcopy-ram without hand-off", ErrorClass::unsupported,
       "give --handoff, or turn the capability postcopy-ram off", [&](B& b) { more(begin(b).advise()); }},
      {"postcopy-ram declined",
       ErrorClass::unsupported,
       "--no-postcopy was given, or turn",
       [&](B& b) { more(begin(b).advise()); },
       {.postcopy = Postcopy::declined}},
      {"postcopy-ram with x-ignore-shared",
       ErrorClass::unsupported,
       "exclude each other",
       [&](B& b) { more(begin(b).advise()); },
       {.postcopy = Postcopy::ignore_shared}},
      {"postcopy-ram with x-colo",
       ErrorClass::unsupported,
       "x-colo",
       [&](B& b) { more(begin(b).advise()); },
       {.postcopy = Postcopy::colo}},
      {"postcopy-ram with --dump-blocks",
       ErrorClass::unsupported,
       "--dump-blocks",
       [&](B& b) { more(begin(b).advise()); },
       {.postcopy = Postcopy::read_back}},
      {"switchover of 4 bytes", ErrorClass::bad_stream, "SWITCHOVER_START of length 4",
       [&](B& b) { more(begin(b).command(11, payload(4))); }},
      {"colo", ErrorClass::mismatch, "x-colo", [](B& b) { more(begin(b).command(8)); }},
      {"colo of 1 byte",
       ErrorClass::bad_stream,
       "ENABLE_COLO of length 1",
       [&](B& b) { more(begin(b).command(8, payload(1))); },
       {.x_colo = true}},
  };
  for (const uint16_t cmd : std::initializer_list<uint16_t>{4, 5, 6, 7, 9, 10})
    refusals.push_back({"postcopy command", ErrorClass::bad_stream, "without POSTCOPY_ADVISE",
                        [=](B& b) { more(begin(b).command(cmd, payload(cmd == 7 ? 4 : 0))); }});
  for (const uint16_t cmd : std::initializer_list<uint16_t>{12, 255, 65535})
    refusals.push_back({"unknown command", ErrorClass::unsupported, "is unknown",
                        [=](B& b) { more(begin(b).command(cmd)); }});
  expect_refusals(refusals);
}

TEST(Refusal, section_grammar) {
  expect_refusals({
      {"type 9", ErrorClass::bad_stream, "0x09", [](B& b) { more(begin(b).u8(9)); }},
      {"stray footer", ErrorClass::bad_stream, "0x7e", [](B& b) { more(part(b).ram_close().footer(2)); }},
      {"second configuration", ErrorClass::bad_stream, "0x07",
       [](B& b) { more(begin(b).configuration("pc")); }},
      {"vm description", ErrorClass::bad_stream, "0x06", [](B& b) { more(begin(b).u8(6)); }},
      {"PART never started", ErrorClass::bad_stream, "PART of section 65535",
       [](B& b) { more(begin(b).section_part(65535)); }},
      {"END never started", ErrorClass::bad_stream, "END of section 7",
       [](B& b) { more(start(b).ram_close().section_end(7)); }},
      {"nameless section", ErrorClass::bad_stream, "idstr",
       [](B& b) { more(begin(b).section_start(2, "", 0, 4)); }},
      {"ram version 3", ErrorClass::unsupported, "'ram' has version 3",
       [](B& b) { more(begin(b).section_start(2, "ram", 0, 3)); }},
      {"ram instance 1", ErrorClass::bad_stream, "instance_id",
       [](B& b) { more(begin(b).section_start(2, "ram", 1, 4)); }},
      {"ram twice", ErrorClass::bad_stream, "started twice",
       [](B& b) { more(start(b).ram_close().section_start(3, "ram", 0, 4)); }},
      {"id twice", ErrorClass::bad_stream, "started twice",
       [](B& b) { more(start(b).ram_close().section_start(2, "dirty-bitmap", 0, 1)); }},
      {"vfio", ErrorClass::unsupported, "VFIO",
       [](B& b) { more(begin(b).section_start(5, "0000:00:03.0/vfio", 0, 1)); }},
      {"htab", ErrorClass::unsupported, "spapr/htab",
       [](B& b) { more(begin(b).section_start(5, "spapr/htab", 0, 1)); }},
      {"unknown iterable", ErrorClass::unsupported, "'wombat'",
       [](B& b) { more(begin(b).section_start(5, "wombat", 0, 1)); }},
      {"dirty-bitmap version", ErrorClass::unsupported, "'dirty-bitmap' has version 2",
       [](B& b) { more(begin(b).section_start(5, "dirty-bitmap", 0, 2)); }},
      {"device before ram", ErrorClass::unsupported, "'timer' comes before the END",
       [](B& b) { more(begin(b).section_full(5, "timer", 0, 2)); }},
      {"device before END", ErrorClass::unsupported, "'timer' comes before the END",
       [](B& b) { more(start(b).ram_close().section_full(5, "timer", 0, 2)); }},
      {"EOF before END", ErrorClass::bad_stream, "before the END section of RAM",
       [](B& b) { more(start(b).ram_close().u8(0)); }},
      {"PART behind END", ErrorClass::bad_stream, "after its END",
       [](B& b) { more(start(b).ram_close().ram_end().ram_close().ram_part()); }},
      {"no footer", ErrorClass::bad_stream, "missing after 'ram'", [](B& b) { more(part(b).eos().u8(2)); }},
      {"neither footer nor section", ErrorClass::bad_stream, "neither",
       [](B& b) { more(start(b).eos().u8(0x41)); }},
      {"footer of another", ErrorClass::bad_stream, "found 85, allowed 2",
       [](B& b) { more(part(b).eos().footer(0x55)); }},
      {"first footer of another", ErrorClass::bad_stream, "found 85, allowed 2",
       [](B& b) { more(start(b).eos().footer(0x55)); }},
  });
}

TEST(Refusal, block_list) {
  const auto list = [](B& b, uint64_t total) -> B& {
    return begin(b).section_start(2, "ram", 0, 4).be64(total | B::kMemSize);
  };
  std::vector<Refusal> refusals = {
      {"no name", ErrorClass::bad_stream, "empty name", [=](B& b) { more(list(b, 8192).u8(0)); }},
      {"length 0", ErrorClass::bad_stream, "not a multiple",
       [=](B& b) { more(list(b, 8192).str8("a").be64(0)); }},
      {"length 4095", ErrorClass::bad_stream, "not a multiple",
       [=](B& b) { more(list(b, 8192).str8("a").be64(4095)); }},
      {"longer than the total", ErrorClass::bad_stream, "found 12288, allowed 8192",
       [=](B& b) { more(list(b, 8192).str8("a").be64(12288)); }},
      {"longer than the rest", ErrorClass::bad_stream, "allowed 4096",
       [=](B& b) { more(list(b, 8192).str8("a").be64(4096).str8("b").be64(8192)); }},
      {"the whole address space", ErrorClass::bad_stream, "allowed 8192",
       [=](B& b) { more(list(b, 8192).str8("a").be64(0xfffffffffffff000)); }},
      {"twice", ErrorClass::bad_stream, "'a' is listed twice",
       [=](B& b) { more(list(b, 8192).str8("a").be64(4096).str8("a").be64(4096)); }},
      {"control character", ErrorClass::bad_stream, "control character",
       [=](B& b) { more(list(b, 8192).str8("a\n").be64(4096)); }},
      {"too long for us", ErrorClass::mismatch, "too long",
       [=](B& b) { more(list(b, 1ULL << 40).str8("a").be64(1ULL << 40)); }},
      {"not first", ErrorClass::bad_stream, "must be MEM_SIZE",
       [](B& b) { more(begin(b).section_start(2, "ram", 0, 4).eos()); }},
      {"second list", ErrorClass::bad_stream, "comes once",
       [](B& b) { more(start(b).be64(4096 | B::kMemSize)); }},
      {"list in a PART", ErrorClass::bad_stream, "comes once",
       [](B& b) { more(part(b).be64(4096 | B::kMemSize)); }},
      {"4097 blocks", ErrorClass::bad_stream, "found 4097, allowed 4096",
       [=](B& b) {
         list(b, 4200 * 4096);
         for (int i = 0; i < 4200; ++i) b.str8("block" + std::to_string(i)).be64(4096);
         more(b);
       }},
  };
  expect_refusals(refusals);
}

TEST(Refusal, ram_records) {
  const std::array<std::byte, 16> zeros{};
  std::vector<Refusal> refusals = {
      {"CONTINUE first", ErrorClass::bad_stream, "CONTINUE",
       [](B& b) { more(part(b).be64(B::kPage | B::kContinue)); }},
      {"unknown block", ErrorClass::bad_stream, "'foo' is not in the list",
       [](B& b) { more(part(b).be64(B::kPage).str8("foo")); }},
      {"nameless block", ErrorClass::bad_stream, "empty name",
       [](B& b) { more(part(b).be64(B::kPage).str8("")); }},
      {"offset behind the end", ErrorClass::bad_stream, "found 16384, allowed 12288",
       [](B& b) { more(part(b).be64(16384 | B::kPage).str8("ram")); }},
      {"offset far behind the end", ErrorClass::bad_stream, "allowed 12288",
       [](B& b) { more(part(b).be64(0xfffffffffffff000 | B::kZero).str8("ram")); }},
      {"offset behind the end, continued", ErrorClass::bad_stream, "found 16384",
       [](B& b) { more(part(b).zero("ram", 0).be64(16384 | B::kPage | B::kContinue)); }},
      {"xbzrle offset", ErrorClass::bad_stream, "found 16384",
       [](B& b) { more(part(b).be64(16384 | B::kXbzrle).str8("ram")); }},
      {"compress offset",
       ErrorClass::bad_stream,
       "found 16384",
       [](B& b) { more(part(b).be64(16384 | B::kCompressPage).str8("ram")); },
       {.compress = true}},
      {"zero page with 5", ErrorClass::bad_stream, "found 5, allowed 0",
       [](B& b) { more(part(b).zero("ram", 0, 5)); }},
      {"zero pages of 1 KiB", ErrorClass::unsupported, "pages of 1 KiB",
       [](B& b) { more(part(b).zero("ram", 0).be64(0x400 | B::kZero | B::kContinue).u8(0)); }},
      {"pages of 1 KiB", ErrorClass::unsupported, "pages of 1 KiB",
       [](B& b) {
         const auto content = make_page(1);
         const auto small = std::span(content).first(1024);
         part(b).be64(4096 | B::kPage).str8("ram").raw(small);
         for (uint64_t at = 4096 + 1024; at < 4 * 4096; at += 1024)
           b.be64(at | B::kPage | B::kContinue).raw(small);
       }},
      {"pages of 8 KiB", ErrorClass::bad_stream, "other pages than 4 KiB",
       [](B& b) { part(b).be64(0 | B::kPage).str8("ram").raw(make_page(1)).raw(make_page(0xeee)); }},
      {"hook", ErrorClass::unsupported, "RDMA", [](B& b) { more(part(b).be64(B::kHook)); }},
      {"compress off", ErrorClass::mismatch, "capability compress",
       [](B& b) { more(part(b).compressed("ram", 0, make_page(1))); }},
      {"compressed length 0",
       ErrorClass::bad_stream,
       "allowed 4110",
       [](B& b) { more(part(b).page_header("ram", 0, B::kCompressPage).be32(0)); },
       {.compress = true}},
      {"compressed length 4111",
       ErrorClass::bad_stream,
       "found 4111, allowed 4110",
       [](B& b) { more(part(b).page_header("ram", 0, B::kCompressPage).be32(4111)); },
       {.compress = true}},
      {"compressed noise",
       ErrorClass::bad_stream,
       "COMPRESS_PAGE data",
       [](B& b) { more(part(b).page_header("ram", 0, B::kCompressPage).be32(100)); },
       {.compress = true}},
      {"xbzrle encoding 2", ErrorClass::bad_stream, "found 2, allowed 1",
       [](B& b) { more(part(b).page_header("ram", 0, B::kXbzrle).u8(2).be16(4)); }},
      {"xbzrle length 4097", ErrorClass::bad_stream, "found 4097, allowed 4096",
       [](B& b) { more(part(b).page_header("ram", 0, B::kXbzrle).u8(1).be16(4097)); }},
      {"xbzrle zeros", ErrorClass::bad_stream, "XBZRLE data",
       [&](B& b) { more(part(b).xbzrle("ram", 0, zeros)); }},
  };
  // No bit, one that does not exist, the one that died in 2009, and every pair of those that exist.
  for (const uint64_t flags : {0x000U, 0x400U, 0x800U, 0x001U, 0x020U})
    refusals.push_back({"flags",
                        ErrorClass::bad_stream,
                        "combination of flags",
                        [=](B& b) { more(part(b).be64(flags)); },
                        {.compress = true}});
  const uint64_t known[] = {B::kZero,   B::kMemSize, B::kPage,         B::kEos,
                            B::kXbzrle, B::kHook,    B::kCompressPage, B::kMultifdFlush};
  for (const uint64_t one : known)
    for (const uint64_t two : known)
      if (one < two)
        refusals.push_back({"pair of flags",
                            ErrorClass::bad_stream,
                            "combination of flags",
                            [=](B& b) { more(part(b).be64(one | two).str8("ram")); },
                            {.compress = true}});
  expect_refusals(refusals);
}

TEST(Refusal, more_sections_than_any_source_has) {
  expect_refusals({{"65 sections", ErrorClass::bad_stream, "found 65, allowed 64", [](B& b) {
                      begin(b);
                      for (uint32_t i = 0; i < 70; ++i)
                        b.section_start(i, "dirty-bitmap", i, 1).u8(1).footer(i);
                      more(b);
                    }}});
}

TEST(Refusal, mapped_ram_files_hold_no_page_records) {
  const auto file = [](B& b) -> B& {
    return begin(b).capabilities({"mapped-ram"}).section_start(2, "ram", 0, 4).be64(0 | B::kMemSize);
  };
  std::vector<Refusal> refusals;
  for (const uint64_t flag : {B::kPage, B::kZero, B::kXbzrle, B::kHook, B::kMultifdFlush, B::kCompressPage})
    refusals.push_back({"record in a mapped-ram file",
                        ErrorClass::bad_stream,
                        "mapped-ram",
                        [=](B& b) { more(file(b).be64(flag)); },
                        {.compress = true, .mapped_ram = true}});
  const auto block = [](B& b) -> B& {
    return begin(b)
        .capabilities({"mapped-ram"})
        .section_start(2, "ram", 0, 4)
        .be64(8192 | B::kMemSize)
        .str8("ram")
        .be64(8192);
  };
  const auto refuse = [&](ErrorClass error_class, const char* words, uint32_t version, uint64_t page,
                          uint64_t bitmap, uint64_t pages) {
    refusals.push_back({"mapped-ram header",
                        error_class,
                        words,
                        [=](B& b) { more(block(b).be32(version).be64(page).be64(bitmap).be64(pages)); },
                        {.mapped_ram = true}});
  };
  refuse(ErrorClass::unsupported, "found 2, allowed 1", 2, 4096, 100, 1 << 20);
  refuse(ErrorClass::mismatch, "found 16384, allowed 4096", 1, 16384, 100, 1 << 20);
  refuse(ErrorClass::bad_stream, "page boundary", 1, 4096, 100, (1 << 20) + 8);
  refuse(ErrorClass::bad_stream, "page boundary", 1, 4096, 8192, 4096);
  refuse(ErrorClass::bad_stream, "beyond any file", 1, 4096, UINT64_MAX - 3, 4096);
  refuse(ErrorClass::bad_stream, "beyond any file", 1, 4096, 100, 0xfffffffffffff000);
  refuse(ErrorClass::bad_stream, "beyond any file", 1, 4096, 100, 0x7ffffffffffff000);
  refusals.push_back({"overlapping blocks",
                      ErrorClass::bad_stream,
                      "'b' overlaps the pages of 'a'",
                      [=](B& b) {
                        begin(b).capabilities({"mapped-ram"}).section_start(2, "ram", 0, 4);
                        b.be64(16384 | B::kMemSize);
                        b.str8("a").be64(8192).be32(1).be64(4096).be64(100).be64(1 << 20);
                        more(b.str8("b").be64(8192).be32(1).be64(4096).be64((1 << 20) + 4096).be64(1 << 22));
                      },
                      {.mapped_ram = true},
                      true});
  expect_refusals(refusals);
}

// What QEMU takes although no source sends it.
TEST(Accepted, oddities_that_qemu_takes) {
  B b;
  const std::vector<std::byte> uuid(16, std::byte{7});
  begin(b).capabilities({"xbzrle", "multifd"}).uuid(uuid).open_return_path().open_return_path().command(3);
  b.ram_start({{"ram", 4 * kPageBytes, {}}}).be64(B::kEos | B::kContinue).footer(2);
  b.ram_part().be64(B::kMultifdFlush | B::kContinue).multifd_flush();  // without multifd nothing to wait for
  b.page_header("ram", 0, B::kXbzrle).u8(1).be16(0);                   // xbzrle off here
  b.ram_close();
  MainSettings settings;
  settings.uuid.emplace();
  settings.uuid->fill(std::byte{7});
  MainRig rig(settings);
  EXPECT_EQ(ParseStatus::need_more, rig.feed(b.bytes(), 5)) << rig.channel.error().message();
}

// Whatever comes: no crash, no write beside a block (guard pages), an error with a place or a wait for more
// bytes.
TEST(Robustness, flipped_bits_and_missing_bytes_never_get_past_the_checks) {
  B b;
  begin(b).capabilities({"xbzrle"}).open_return_path().ping(1);
  b.section_start(9, "dirty-bitmap", 0, 1).u8(1).footer(9);
  b.ram_start({{"ram", 4 * kPageBytes, {}}, {"rom", kPageBytes, {}}}).ram_close();
  b.ram_part().page("ram", 0, make_page(1)).zero("ram", kPageBytes);
  auto patched = make_page(1);
  patched[77] ^= std::byte{1};
  b.xbzrle("ram", 0, test::encode_xbzrle(make_page(1), patched));
  b.compressed("ram", 2 * kPageBytes, std::vector<std::byte>(kPageBytes, std::byte{3}));
  b.zero("rom", 0).ram_close();
  b.ram_end().page("ram", 3 * kPageBytes, make_page(4)).ram_close();
  b.section_end(9).u8(1).footer(9).device_tail();

  uint64_t failed = 0;
  std::mt19937 random(20240607);
  const auto run = [&](std::vector<std::byte> stream) {
    MainRig rig({.xbzrle = true, .compress = true});
    const ParseStatus status = rig.feed(stream, 1 + random() % 700);
    if (status == ParseStatus::failed) {
      ++failed;
      ASSERT_NE(ErrorClass::none, rig.channel.error().error_class);
      ASSERT_LE(rig.channel.error().offset, stream.size());
      ASSERT_NE('\0', rig.channel.error().field[0]);
    } else {
      static_cast<void>(rig.channel.end_of_stream());
    }
  };
  const auto payload = [&](std::size_t i) { return i % 64 != 0 && i > 400 && i + 700 < b.size(); };
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (payload(i)) continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> stream = b.bytes();
      stream[i] ^= static_cast<std::byte>(1 << bit);
      run(std::move(stream));
    }
    std::vector<std::byte> shorter = b.bytes();
    shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(i));
    run(std::move(shorter));
  }
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> stream = b.bytes();
    for (uint64_t n = 1 + random() % 6; n > 0; --n)
      stream[random() % stream.size()] = static_cast<std::byte>(random());
    run(std::move(stream));
  }
  EXPECT_GT(failed, 1000u);
}

}  // namespace
}  // namespace migrx
