"""Goal: our chat templates render as the reference does. Method: each template of tests/data/chat_templates with each conversation there, and random templates
from the subset's grammar, go through jinja2 and through our renderer; texts must be equal byte for byte, and what fails must fail on both sides.

differential_test.py RENDERER DATA_FOLDER [SEED [CASES]]
"""

import json
import pathlib
import sys

import random_templates
import reference


def template_cases(folder):
    conversations = json.loads((folder / "conversations.json").read_text())
    for path in sorted(folder.glob("*.jinja")):
        for name, context in conversations.items():
            yield f"{path.name} with {name}", path.read_text(), context


def agrees(expected, ours):
    """expected: what reference.render gave."""
    kind, text = expected
    # Recursion limits are each side's own; nobody can promise the address that Python prints of a generator; and a slice of a number is undefined to jinja2
    # where it is a constant, an error elsewhere: to us always an error. docs/chat-templates.md says so.
    if kind == reference.SKIPPED or " at 0x" in text.lower() or any(words in ours.get("error", "") for words in ("has no text of its own", "has no slices")):
        return True
    if kind == "text":
        return ours.get("text") == text
    if kind == "raised":
        return ours.get("error") == text
    return "error" in ours


def compare(renderer, cases):
    """Prints each difference; (number of differences, of texts, of errors)."""
    env = reference.environment()
    results = reference.render_ours(renderer, [(template, context) for _, template, context in cases])
    if len(results) != len(cases):
        raise RuntimeError(f"the renderer answered {len(results)} of {len(cases)} lines")
    differences = texts = 0
    for (name, template, context), ours in zip(cases, results, strict=True):
        expected = reference.render(env, template, context)
        texts += expected[0] == "text"
        if not agrees(expected, ours):
            differences += 1
            if differences <= 10:
                print(f"{name}\n  template  {template[:2000]!r}\n  reference {expected}\n  ours      {ours}", file=sys.stderr)
    return differences, texts, len(cases) - texts


def main(renderer, folder, seed="20261122", count="3000"):
    published_forms = list(template_cases(pathlib.Path(folder)))
    random_cases = [(f"random template {i}, seed {seed}", template, context) for i, (template, context) in enumerate(random_templates.generate(int(seed), int(count)))]
    failed = 0
    for title, cases, texts_min in (("templates", published_forms, 0.5), ("random templates", random_cases, 0.3)):
        differences, texts, errors = compare(renderer, cases)
        print(f"{title}: {len(cases)} cases, {texts} texts, {errors} errors on both sides, {differences} differences")
        # Errors prove little: most cases have to be texts.
        failed += differences + (0 if texts > texts_min * len(cases) else 1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
