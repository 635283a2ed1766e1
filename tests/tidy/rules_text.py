"""Words that must not be in the sources: calls with a better replacement, exceptions of ours, promises without an issue, one machine's paths."""

import re

from repository import Finding

# A line may break these with a reason: `// tidy-ok: the reason`.
EXCUSE = re.compile(r"//\s*tidy-ok:\s*\w+")

# (pattern, what to do instead, whether unit tests have to do without it too)
BANNED = [
    (r"\b(sleep_for|sleep_until|usleep|nanosleep)\s*\(", "wait for the condition with a Deadline; a sleep is too short or too long", True),
    (r"(?<![\w:.>])(std::)?s?rand\s*\(", "draw from a generator with a seed that is passed in", True),
    (r"\.detach\s*\(\s*\)", "a detached thread outlives what it uses: keep it and join it", True),
    (r"\busing namespace std\s*;", "name what you use", True),
    (r"\bassert\s*\(", "use LOCKSTEP_CHECK: it is on in release builds and names values", True),
    (r"\bstd::(basic_)?w?regex\b", "it is slow and recurses on input; PCRE2 lives in model/", False),
    (r"\bstd::async\s*\(", "its future blocks in the destructor, on a thread that nobody counts: use a stream or a jthread", False),
    (r"(?<![\w.>])(std::)?(sprintf|strcpy|strcat|gets|strtok)\s*\(", "use fmt or std::string", False),
    (r"(?<![\w.>:])(std::)?(system|popen)\s*\(", "no shells", False),
]

# Where exceptions of ours may be thrown: the seeds' public API, whose misuse throws by contract.
MAY_THROW = ("core/dp_metadata.cpp", "core/forward_context.cpp", "include/lockstep/micro_batch", "include/lockstep/microbatcher", "device/micro_batch", "core/microbatcher")

PROMISE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home|root|Users)/\w")


def check(repository):
    for file in repository.files:
        yield from check_promises_and_paths(file)
        if file.is_code:
            yield from check_banned(file)
            yield from check_catch_all(file)
            yield from check_throw(file)


def check_promises_and_paths(file):
    # The rules themselves and their tests have to spell out what they look for.
    if file.path.startswith("tests/tidy/"):
        return
    for number, line in enumerate(file.lines, start=1):
        if PROMISE.search(line):
            yield Finding(file.path, number, "todo", "write TODO(#number) with an issue, or do it")
        if MACHINE_PATH.search(line):
            yield Finding(file.path, number, "machine-path", "a path of one machine: pass it in, or derive it")


def check_banned(file):
    # Unit tests have a ManualClock; tests of real processes have to wait for the kernel now and then.
    is_unit_test = file.path.startswith("tests/unit/")
    if file.is_test_code and not is_unit_test:
        return
    rules = [(pattern, advice) for pattern, advice, in_unit_tests in BANNED if in_unit_tests or not is_unit_test]
    for number, line in enumerate(file.code.split("\n"), start=1):
        for pattern, advice in rules:
            match = re.search(pattern, line)
            if match and not EXCUSE.search(file.lines[number - 1]):
                yield Finding(file.path, number, "banned-call", f"{match.group(0).rstrip('( ')}: {advice}")


def check_catch_all(file):
    for match in re.finditer(r"\bcatch\s*\(\s*\.\.\.\s*\)", file.code):
        line = file.line_of(match.start())
        near = file.lines[line - 1 : line + 1]  # on its line, or the first one inside
        if not any("//" in text for text in near):
            yield Finding(file.path, line, "catch-all", "say in a comment why everything is caught here and nothing is lost")


def check_throw(file):
    if file.is_test_code or file.path.startswith(MAY_THROW):
        return
    for match in re.finditer(r"\bthrow\b", file.code):
        line = file.line_of(match.start())
        if not EXCUSE.search(file.lines[line - 1]):
            yield Finding(file.path, line, "throw", "return an Error: only the seeds' public API throws")
