#!/usr/bin/python3
"""docs/control.schema.json is a schema, and the conversation in docs/control.md has its form."""

import json
import os
import re
import sys

import jsonschema

_DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs")
# What no line of the protocol looks like.
_WRONG = (
    '{"execute": "session-add", "arguments": {"port": "0000:41:00.0"}}',
    '{"execute": "session-add"}',
    '{"execute": "session-cancel", "arguments": {}}',
    '{"execute": "query-session", "arguments": {"id": 1}}',
    '{"execute": "quit", "arguments": {"now": true}}',
    '{"execute": "quit", "argument": {}}',
    '{"event": "READY", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}',
    '{"error": {"class": "Oops", "desc": ""}}',
    '[]',
)


def load(name):
    with open(os.path.join(_DOCS, name), encoding="utf-8") as file:
        return json.load(file)


def problems():
    schema = load("control.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    store = {"report.schema.json": load("report.schema.json")}
    validator = jsonschema.Draft202012Validator(schema, resolver=jsonschema.RefResolver("", schema, store))
    with open(os.path.join(_DOCS, "control.md"), encoding="utf-8") as file:
        lines = re.findall(r"^(?:->|<-) (\{.*\})$", file.read(), re.MULTILINE)
    if len(lines) < 5:
        yield "only %d lines of a conversation found in docs/control.md" % len(lines)
    for line in lines:
        for error in validator.iter_errors(json.loads(line)):
            yield "docs/control.md: %s: %s" % (line, error.message)
    for line in _WRONG:
        if validator.is_valid(json.loads(line)):
            yield "the schema allows %s" % line


def main():
    found = list(problems())
    for problem in found:
        print(problem)
    print("%d passed, %d failed" % (int(not found), int(bool(found))))
    sys.exit(int(bool(found)))


if __name__ == "__main__":
    main()
