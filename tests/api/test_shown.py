"""What is shown commands neither a terminal nor the CI runner that prints it."""

import pytest
from attacks.members.shown_text import COMMANDS
from hypothesis import given
from hypothesis import strategies as st

from lmft_api.text.shown import one_line, printable, shown


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "before", ["", "words\n", "words\r", "words\r\n", "words\u2028", "words\x85", "words\x0b", "words\x0c\n"]
)
def test_a_command_to_a_ci_runner_is_none_any_more(command: str, before: str) -> None:
    said = shown(before + command)
    assert not any(line.lstrip().startswith("::") for line in said.splitlines()), said
    assert not any(mark in said.lower() for mark in ("##[", "##vso[", "##teamcity[")), said
    assert not one_line(before + command).startswith("::")


@pytest.mark.parametrize(
    "text",
    [
        "std::vector and a::b", "words: x\n  y: z", "# heading\n## heading\n### heading", "a\tb\nc", "x ## [y]",
        "ü “a” →", "spec.dataset.files[0]: file:///x::y",
    ],
)  # fmt: skip
def test_other_text_stays(text: str) -> None:
    assert shown(text) == text


def test_control_characters_and_turned_writing_become_blanks() -> None:
    assert printable("a\x1b[31mb\x00c\u202ed\u2066e\x9bf\ud800g") == "a [31mb c d e f g"
    assert one_line("a\x1b[2Jb\n\n c\rd") == "a [2Jb c d"
    assert one_line("12345678", 5) == "1234…"


@given(st.text(alphabet=st.sampled_from(list(":#[vso \t\r\n\x0b\u2028\x85\x1bab")), max_size=40))
def test_whatever_is_shown_is_safe_and_is_not_changed_again(text: str) -> None:
    said = shown(text)
    assert shown(said) == said
    assert not any(line.lstrip().startswith("::") for line in said.splitlines())
    assert "##[" not in said
    assert "\x1b" not in said
    assert "\n" not in one_line(text)
