"""Outputs that cannot be written are refused before the work."""

import pytest
from support.cli import refuse

CASES = [
    ["simulate", "gpt-oss-20b", "--device", "h100_sxm", "--timeline", "{}"],
    ["validate", "plan", "gpt-oss-20b", "--device", "h100_sxm", "-o", "{}"],
    ["validate", "report", "runs", "-o", "{}"],
    ["validate", "pack", "runs", "-o", "{}"],
    ["calibrate", "runs", "-o", "{}"],
]


@pytest.mark.parametrize("words", CASES, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize(("place", "remedy"), [("none/x.json", "make it first"), (".", "a folder")])
def test_a_target_that_cannot_be_written_is_refused(tmp_path, words, place, remedy):
    target = str(tmp_path / place)
    assert remedy in refuse(*(word.format(target) for word in words))
