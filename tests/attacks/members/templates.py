"""Chat templates, which are programs of strangers: they come with models, and render every conversation.

An effect is memory that fills, time without end, an error that is not the template's, a changed conversation, or more
of Python than a sandbox shows. What only ends with the time limit is left out: a second each is too long.
"""

import resource
from collections.abc import Iterator
from functools import partial

from support.limits import within_seconds

from attacks.registry import Attack
from lmft_job.data.chat.template.rendering import (
    MOST_CHARACTERS,
    ChatTemplate,
    TemplateBrokenError,
    TemplateRefusedError,
)

TEXT = f"('a' * {MOST_CHARACTERS})"
MUCH_OF_LITTLE = [
    "{{ '{:{w}}'.format('a', w=2000000000)|length }}",
    "{{ '%*d' % (1000000000, 5) }}",
    "{{ '%.*f' % (2000000000, 5.0) }}",
    "{{ ('a'.encode() * 3000000000)|length }}",
    "{{ ('a' * 3000000000)|length }}",
    "{{ ([1] * 3000000000)|length }}",
    f"{{{{ {TEXT}.replace('a', 'b' * 200)|length }}}}",
    f"{{{{ {TEXT}|replace('a', 'b' * 200)|length }}}}",
    f"{{{{ {TEXT}.join(['x'] * 200)|length }}}}",
    f"{{{{ {TEXT} ~ 'a' }}}}",
    "{{ 1.5|round(100000000, 'ceil') }}",
    "{{ [1]|batch(400000000, 0)|list|length }}",
    "{{ [1]|slice(400000000)|list|length }}",
    "{{ 'a'|center(99999999) }}",
    "{{ 'a'|indent(99999999) }}",
    "{{ 'a'.ljust(99999999) }}",
    "{{ 'a'.zfill(width=99999999) }}",
    "{{ range(99999999) }}",
    "{{ 2 ** 64 ** 2 }}",
    "{{ [1]|tojson(indent=99999999) }}",
    "{% set ns = namespace(x=7) %}{% for i in range(34) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x > 5 }}",
]
"""Refused: each would take gigabytes, or minutes in which nothing interrupts Python."""
DEEP = [
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{{ " + "(" * 1000 + "1" + ")" * 1000 + " }}",
    "{{ " + "[" * 150 + "1" + "]" * 150 + " }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ 1" + "|string" * 3000 + " }}",
    "{{ a" + "(a" * 500 + ")" * 500 + " }}",
    "{% macro a() %}" * 300 + "{% endmacro %}" * 300,
    "{% with a=1 %}" * 300 + "{% endwith %}" * 300,
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "{{ " + "9" * 5000 + " }}",
]
ODD = [
    "{% break %}",
    "{% continue %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% do 1 %}",
    "{{ 'a'|truncate(-5) }}",
    "{{ strftime_now('\ud800') }}",
    "{{ strftime_now('%999999999d') }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0].update(a=1) }}",
    "{{ 1 / 0 }}",
    "{{ 1e999|int }}",
    "{{ []|random }}",
    "{{ [1]|select('nope')|list }}",
    "{{ 1 is nope }}",
    "{{ 5|dictsort }}",
    "{{ [1, 'a']|sort }}",
    "{{ [[1]]|unique|list }}",
    "{{ raise_exception(messages) }}",
    "{{ none() }}",
    "{% set ns.x = 1 %}",
    "{{ namespace(__class__=1) }}",
    "{% generation %}",
    "{% generation %}{% generation %}{% endgeneration %}{% endgeneration %}",
    "{{ caller() }}",
    "{{ '\ud800' }}",
    "{% set messages = 1 %}{{ messages.x() }}",
    "{{ 'a'.encode('idna').decode('utf-16') }}",
]
CURIOUS = [
    "''.__class__",
    "''|attr('__class__')",
    "cycler.__init__.__globals__",
    "raise_exception.__globals__",
    "tojson.__globals__",
    "strftime_now.__closure__",
    "self.__init__",
    "self._TemplateReference__context",
    "([]|map('upper')).gi_frame",
    "messages.__class__.__mro__",
    "namespace.__init__.__globals__",
    "dict.__subclasses__()",
    "'{0.__class__}'.format(messages)",
    "'{0.__class__}'.format_map({'0': 1})",
    "[messages]|map(attribute='__class__')|list",
    "[messages]|groupby('__class__')|list",
    "lipsum.__globals__",
    "joiner().__dict__",
    "range.__class__",
]


def attacks() -> Iterator[Attack]:
    """Each template over one conversation."""
    for template in MUCH_OF_LITTLE:
        yield Attack(f"much of little: {template}", partial(rendered, template, refused=True))
    for number, template in enumerate(DEEP):
        yield Attack(f"deep {number}: {template[:30]}", partial(rendered, template, refused=True))
    for template in ODD:
        yield Attack(f"odd: {template!r}", partial(rendered, template))
    for expression in CURIOUS:
        yield Attack(f"curious: {expression}", partial(rendered, f"{{{{ {expression} }}}}"))


def rendered(template: str, *, refused: bool = False) -> str | None:
    """The effect of a template over one conversation."""
    messages = [{"role": "user", "content": "a"}]
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    text = ""
    try:
        with within_seconds(30):
            text = ChatTemplate(template, {"bos_token": "<s>"}, "2027-01-15").render(messages).text
    except (TemplateBrokenError, TemplateRefusedError) as error:
        if not str(error):
            return "is refused without a word"
    else:
        if refused:
            return f"wrote {len(text)} characters"
    if messages != [{"role": "user", "content": "a"}]:
        return "changed the conversation"
    if resource.getrlimit(resource.RLIMIT_DATA) != limits:
        return "left its limit to the process"
    shown = [word for word in ("<class", "<function", "<built-in", "globals", "\ue000") if word in text]
    return f"shows {shown}" if shown else None
