#!/usr/bin/python3
"""bench/report from end to end, tiny: runs what needs no QEMU, takes parts from earlier results, says what failed."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPORT = os.path.join(ROOT, "bench", "report")
BUILD = sys.argv.pop(1)


def report(*words):
    return subprocess.run([sys.executable, REPORT, "--build", BUILD, *words], capture_output=True, text=True,
                          check=False)


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def read(self, *path):
        with open(os.path.join(self.folder.name, *path), encoding="utf-8") as file:
            return file.read()

    def test_parts_are_run_and_taken_from_earlier_results(self):
        first, second = (os.path.join(self.folder.name, name) for name in ("first", "second"))
        run = report("--tiny", "--only", "pipeline,barrier", "--out", first)
        self.assertEqual(run.returncode, 0, run.stderr)
        run = report("--tiny", "--only", "prefault,dma", "--from", os.path.join(first, "results.json"), "--out", second)
        self.assertEqual(run.returncode, 0, run.stderr)
        earlier, results = (json.loads(self.read(name, "results.json")) for name in ("first", "second"))
        self.assertEqual(sorted(results["parts"]), ["barrier", "dma", "pipeline", "prefault"])
        self.assertEqual(results["parts"]["pipeline"], earlier["parts"]["pipeline"])
        rows = results["parts"]["pipeline"]["data"]["rows"]
        self.assertLessEqual({"channels", "shape", "loss", "pool", "burst"}, {row["series"] for row in rows})
        for row in rows:
            # What was lost is what was asked for: every 20th of the segments that may get lost.
            self.assertEqual(row["lost"]["median"] > 0, row["drop_every"] > 0, row)
            self.assertGreater(row["wire_gb_s"]["median"], row["ram_gb_s"]["median"])
        ways = {(row["slice_bytes"], row["way"]) for row in results["parts"]["dma"]["data"]["rows"]}
        self.assertLessEqual({(1448, "writer"), (1448, "dma"), (8948, "dma+joined"), (4096, "floor")}, ways)
        # Nine connections' smallest quotas do not fit 1 MiB: the row says what it had, and so does the page.
        least = [row for row in rows if row["pool_mib"] == 1]
        self.assertEqual(len(least), 1)
        self.assertGreater(least[0]["pool_mib_used"], 1)
        for row in rows:
            # A buffer of 2 KiB, its headroom, and a line more where that makes their number odd.
            self.assertAlmostEqual(row["pool_mib_used"] * (1 << 20) / row["buffers"], 2048 + 256, delta=65)
        page = self.read("second", "index.html")
        self.assertIn("<td>%.1f</td>" % least[0]["pool_mib_used"], page)
        self.assertEqual(page.count("<td>●</td>"), sum(row["drop_every"] == 0 for row in rows))
        self.assertIn("400 GbE", page)  # the model, computed from these rows
        self.assertIn("<h2 id='qemu'>Against QEMU (bench/compare_qemu.py)</h2>\n"
                      "<p class='note'>Not measured.</p>", page)
        self.assertNotIn("http://", page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""))  # a page in itself

    def test_a_part_that_cannot_run_is_named_on_the_page(self):
        run = subprocess.run([sys.executable, REPORT, "--build", self.folder.name, "--only", "micro", "--tiny", "--out",
                              os.path.join(self.folder.name, "out")], capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Left out: %s/bench/micro is not built" % self.folder.name, self.read("out", "index.html"))

    def test_wrong_words_are_refused(self):
        self.assertEqual(report("--only", "macro").returncode, 2)
        bad = os.path.join(self.folder.name, "bad.json")
        with open(bad, "w", encoding="utf-8") as file:
            file.write("[]")
        run = report("--only", "none", "--from", bad)
        self.assertEqual(run.returncode, 1)
        self.assertIn("is no results.json of an earlier report", run.stderr)


if __name__ == "__main__":
    unittest.main()
