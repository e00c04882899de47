"""Stands in for the job's image where a test is about the operator: does what the manifest's first prompt says.

The prompt is JSON: {"seconds": how long to run, "exit": code, "message": text of the termination message, "eat": MiB}.
SIGTERM ends it with 75, as the real job does after saving.
"""

import json
import signal
import sys
import time

with open("/etc/lmft/run.json", encoding="utf-8") as file:
    run = json.load(file)
orders = json.loads(((run["spec"].get("sample") or {}).get("prompts") or ["{}"])[0])
if isinstance(orders, list):
    orders = orders[min(run["attempt"], len(orders)) - 1]


def end(code: int, message: str | None) -> None:
    if message is not None:
        with open("/dev/termination-log", "w", encoding="utf-8") as file:
            file.write(message)
    sys.exit(code)


def interrupted(*_: object) -> None:
    end(75, json.dumps({"reason": "Interrupted", "message": "saved", "counts": {"resumedFromStep": 0, "lostSteps": 0}}))


signal.signal(signal.SIGTERM, interrupted)
print("the stub says:", orders, flush=True)
if "eat" in orders:
    hoard = [bytearray(b"x" * 1024 * 1024) for _ in range(orders["eat"])]
until = time.monotonic() + orders.get("seconds", 0)
while time.monotonic() < until:
    time.sleep(0.1)
done = {"reason": "Completed", "message": "done", "results": {"perplexity": "49.61", "baselinePerplexity": "62.30"}}
end(orders.get("exit", 0), orders.get("message", json.dumps(done) if orders.get("exit", 0) == 0 else None))
