#!/usr/bin/env python3
"""Checks the rules of the house that no compiler checks. Usage: tidy.py [REPOSITORY]. Prints one line a finding; exits 1 when there are any."""

import pathlib
import sys

import rules_includes
import rules_readmes
import rules_sizes
import rules_text
from repository import Repository

RULES = [rules_includes, rules_sizes, rules_readmes, rules_text]


def findings(root):
    repository = Repository(root)
    return sorted((finding for rules in RULES for finding in rules.check(repository)), key=lambda finding: (finding.path, finding.line, finding.rule))


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
    found = findings(root)
    for finding in found:
        print(finding)
    print(f"tidy: {len(found)} findings in {root.name}/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
