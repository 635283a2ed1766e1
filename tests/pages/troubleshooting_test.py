#!/usr/bin/env python3
"""Goal    docs/troubleshooting.md has every message that an operator can meet, with cause and remedy, and quotes none that there is not.
Method  Messages are collected from the sources (messages.py says how: each statement that gives an error its text). A row of the page's tables covers a message that
        has what the row quotes, part by part around "..."; every message needs a row, unless it goes to clients or to users of the library, whose pages are named here."""

import re
import unittest

from messages import FOLDERS, REPOSITORY, SCRIPTS, all_messages, messages_of_source

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
# Messages whose reader is another one, by the beginning of their file's path; and the page for that reader.
ELSEWHERE = {
    "scheduler/engine/request_checks.cpp": "docs/api.md",
    "daemon/api/": "docs/api.md",
    "daemon/trace/": "docs/metrics.md",
    "daemon/served_model/id_tokenizer.cpp": "docs/api.md",
    "model/tokenizer/tokenizer.cpp": "docs/api.md",
    "model/chat_template/": "docs/chat-templates.md",
    "core/microbatcher/": "docs/library.md",
}
# What a quote must have at least in one piece, so that it does not fit by chance.
PIECE_MIN = 7


def quotes():
    """The quoted messages of the tables' first cells."""
    cells = re.findall(r"^\| (`.+?`) \| .* \| .* \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]


def pieces(quote):
    return [piece for piece in (piece.strip() for piece in quote.split("...")) if piece]


def covers(quote, text):
    position = 0
    for piece in pieces(quote):
        position = text.find(piece, position)
        if position < 0:
            return False
        position += len(piece)
    return True


def source_text():
    """All sources with their string literals in one piece: the compiler joins neighbours, placeholders are what the page leaves out."""
    parts = [path.read_text(encoding="utf-8") for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.?pp"))]
    text = re.sub(r'"\s*\n\s*"', "", "\n".join(parts)).replace('\\"', '"')
    return text + "".join((REPOSITORY / script).read_text(encoding="utf-8") for script in SCRIPTS)


class Messages(unittest.TestCase):
    def test_are_collected_from_each_form_of_statement(self):
        source = """
            Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }
            Status first() {
              return Error{ErrorCode::kTimeout, fmt::format("no word for {} s; "  // a remark, "with a text"
                                                            "ask {}", seconds, "x")};
            }
            Status second() { return invalid(fmt::format("wrong: {} is \\"{}\\"", a, b)); }
        """
        self.assertEqual({message.text for message in messages_of_source("x.cpp", source)}, {"no word for {} s; ask {}", 'wrong: {} is "{}"'})

    def test_are_all_on_the_page(self):
        messages = all_messages()
        self.assertGreater(len(messages), 250, "messages.py does not see them any more")
        self.assertEqual({script for script in SCRIPTS if not any(message.path == script for message in messages)}, set())
        rows = quotes()
        missing = [message for message in messages if not message.path.startswith(tuple(ELSEWHERE)) and not any(covers(quote, message.text) for quote in rows)]
        self.assertEqual([f"{message.path}: {message.text}" for message in missing], [], "docs/troubleshooting.md needs a row for each of these")

    def test_of_other_readers_are_there_and_so_are_their_pages(self):
        paths = {message.path for message in all_messages()}
        for beginning, page in ELSEWHERE.items():
            self.assertTrue(any(path.startswith(beginning) for path in paths), f"{beginning} has no message any more")
            self.assertTrue((REPOSITORY / page).is_file(), page)


class Troubleshooting(unittest.TestCase):
    def test_quotes_messages_that_there_are(self):
        text = source_text()
        self.assertGreater(len(quotes()), 150, "the page's tables have changed their form")
        for quote in quotes():
            for piece in pieces(quote):
                with self.subTest(quote=quote):
                    self.assertTrue(piece in text, f"no message has {piece!r}")

    def test_quotes_enough_of_each_to_know_it(self):
        for quote in quotes():
            self.assertGreaterEqual(max(map(len, pieces(quote))), PIECE_MIN, quote)


if __name__ == "__main__":
    unittest.main()
