"""A chat template is a program of somebody else: it is rendered within limits, and reaches nothing."""

import time
from pathlib import Path

import pytest
from support.chats import DATED, MARKED, chat

from lmft_job.data.chat.messages.wrong import BadRowError
from lmft_job.data.chat.template import rendering
from lmft_job.data.chat.template.confined import write_confined
from lmft_job.data.chat.template.rendering import ChatTemplate, TemplateBrokenError, TemplateRefusedError, TooSlowError

DAY = "2026-03-04"
HOSTILE = {
    "classes": "{{ ().__class__.__base__.__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "a changed conversation": "{{ messages.append(1) }}",
    "a long text": "{{ 'a' * 10000000000 }}",
    "a long list": "{{ [1] * 10000000000 }}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "a wide field": "{{ '%1000000000d' % 1 }}",
    "a wide format": "{{ '{:1000000000}'.format(1) }}",
    "a centred text": "{{ 'a'.center(1000000000) }}",
    "a centring filter": "{{ 'a' | center(1000000000) }}",
    "an indent": "{{ 'a\nb' | indent(1000000000) }}",
    "a doubling text": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    "{{ ns.x }}",
    "a private name": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "an endless recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
}


@pytest.mark.parametrize("way", HOSTILE)
def test_what_a_template_tries_spoils_its_row_alone(way: str, tmp_path: Path) -> None:
    conversation = {"messages": chat("a", "b")}

    (outcome,) = write_confined(ChatTemplate(HOSTILE[way], {}, DAY), [conversation], (), tmp_path)

    assert isinstance(outcome, BadRowError)
    assert conversation == {"messages": chat("a", "b")}


def test_a_template_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    template = ChatTemplate("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", {}, DAY)
    began = time.monotonic()

    with pytest.raises(TooSlowError):
        template.render(chat("a", "b"))

    assert time.monotonic() - began < 5


def test_a_template_that_is_none_is_named_with_its_line() -> None:
    with pytest.raises(TemplateBrokenError, match="line 2: "):
        ChatTemplate("a\n{% for %}", {}, DAY).require()


def test_a_refusal_is_in_the_templates_words() -> None:
    with pytest.raises(TemplateRefusedError, match="no system turns"):
        ChatTemplate("{{ raise_exception('no system turns') }}", {}, DAY).render(chat("a", "b"))


def test_generation_marks_are_places_in_the_text() -> None:
    rendered = ChatTemplate(MARKED, {}, DAY).render(chat("a", "One.", "b", "Two."))

    assert [rendered.text[start:end] for start, end in rendered.marked] == ["One.", "Two."]


def test_a_template_that_asks_for_the_day_is_known() -> None:
    assert ChatTemplate(DATED, {"bos_token": ""}, DAY).asks_for_the_day
    assert not ChatTemplate(MARKED, {}, DAY).asks_for_the_day
