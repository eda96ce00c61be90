"""Untrusted text in a page: labels, file names and parameters must be shown as text."""

import json
import re

# Controls, which have no picture, and what embeds or overrides the direction of text that follows: with these
# "gpj.exe" reads "exe.jpg". Marks that only set a direction, and joiners, are part of many languages.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


def plain(value):
    """Any value as text that UTF-8 can hold. Hidden characters become U+FFFD."""
    return _HIDDEN.sub("\ufffd", str(value))


def shorten(text, length=60):
    """`text`, or its beginning and end if it is longer than `length` characters."""
    if len(text) <= length:
        return text
    keep = length - 1
    return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"


def to_json(value):
    """JSON that cannot end the script element around it. Raises ValueError for numbers that are not finite."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
