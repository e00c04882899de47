"""No attack has an effect; and one that has is noticed."""

import time

import pytest
from support.limits import within_seconds

from attacks.registry import Attack, effect_of, member_names, try_all


@pytest.mark.parametrize("member", member_names())
def test_no_attack_has_an_effect(member: str) -> None:
    tried = list(try_all(member))
    assert len({attack.name for attack in tried}) == len(tried) > 0
    assert [attack for attack in tried if attack.effect] == []


def test_an_effect_is_noticed_whether_it_is_told_or_raised() -> None:
    assert effect_of(Attack("harmless", lambda: None)) == ""
    assert effect_of(Attack("told", lambda: "another run was changed")) == "another run was changed"
    assert effect_of(Attack("raised", lambda: str(1 // 0))).startswith("ZeroDivisionError")


def test_a_hang_is_noticed_though_a_reader_takes_the_alarm_for_an_error_of_its_own() -> None:
    def hang() -> None:
        with within_seconds(0.05):
            try:
                time.sleep(5)
            except OSError:
                return

    assert effect_of(Attack("hangs", hang)).startswith("TimeoutError: it did not end within 0.05 s")
