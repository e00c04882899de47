"""Tries every attack and prints how many had an effect."""

import logging
import sys

from attacks.registry import Tried, member_names, try_all


def main() -> int:
    """Try them all; 1 when one had an effect."""
    logging.disable(logging.CRITICAL)
    tried: list[Tried] = []
    for member in member_names():
        own = list(try_all(member))
        effects = [attack for attack in own if attack.effect]
        tried += own
        print(f"{member}: attacks tried {len(own)}, attacks with an effect {len(effects)}")
        for attack in effects:
            print(f"  {attack.name}: {attack.effect}")
    effects = [attack for attack in tried if attack.effect]
    print(f"attacks tried {len(tried)}, attacks with an effect {len(effects)}")
    return 1 if effects else 0


if __name__ == "__main__":
    sys.exit(main())
