"""What CUDA graphs gain where a step is so small that the GPU waits for Python: 124M parameters, 8 x 128 tokens.

    python bench/gpu/graphs.py          # --tiny for a CPU, which shows only that it runs

The same bare loop (bench/gpu/bare.py), compiled as a whole: by torch.compile's defaults, and with
``mode="reduce-overhead"``, which replays forward and backward as CUDA graphs. In turns, three rounds; each finished
round prints a JSON line, the last one the ratio of the medians. The product uses CUDA graphs if it is 1.3 or more; on a
CPU both are the same loop.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from bare import Decoder
from commands import judge, say
from loops import SHAPES

WARM, STEPS, ROUNDS = 20, 100, 3


def prepared(shape: Any, device: torch.device, mode: str | None) -> Any:
    """A function that does a number of steps, and waits for the device."""
    torch.manual_seed(1)
    model = Decoder(shape).to(device).train()
    step_of = torch.compile(model, mode=mode) if device.type == "cuda" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=device.type == "cuda")
    ids = torch.randint(3, shape.vocabulary, (shape.rows, shape.block), device=device)

    def steps(number: int) -> float:
        loss = torch.zeros(())
        for _ in range(number):
            torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = step_of(ids)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return steps


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    shape = SHAPES["tutorial"]
    if tiny:
        shape = shape.smaller()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds = {"compiled": prepared(shape, device, None), "graphs": prepared(shape, device, "reduce-overhead")}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    count = 3 if tiny else STEPS
    for kind, steps in kinds.items():
        began = time.perf_counter()
        loss = steps(2 if tiny else WARM)
        say(part="graphs", loop=kind, warm_seconds=round(time.perf_counter() - began, 2), loss=round(loss, 4))
    for _ in range(ROUNDS):
        for kind, steps in kinds.items():
            began = time.perf_counter()
            steps(count)
            seconds[kind].append((time.perf_counter() - began) / count)
            say(part="graphs", loop=kind, ms_per_step=round(1e3 * seconds[kind][-1], 3))
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    ours, peer = (round(1e3 * medians[kind], 3) for kind in ("graphs", "compiled"))
    tiny = tiny or device.type != "cuda"
    judge("graphs/gain", round(peer / ours, 3), tiny=tiny, ours=ours, peer=peer, unit="ms a step")


if __name__ == "__main__":
    main()
