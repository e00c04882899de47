"""What an error or a stack of one rank says about the others. Imports nothing heavy."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lmft_api.reasons import Reason
from lmft_api.text.wording import first_line
from lmft_job.errors import PeersError

_GROUP_ERRORS = frozenset({"DistError", "DistBackendError", "DistNetworkError", "DistStoreError"})
_GROUP_WORDS = re.compile(
    r"gloo/|Gloo [\w ]*failed|Connection (closed|reset) by peer|Connection refused|Broken pipe|NCCL|TCPStore|"
    r"ProcessGroup|[Ss]ocket Timeout|client socket has (timed out|failed)",
)
_UNREACHED_WORDS = re.compile(
    r"connectFullMesh|client socket has (timed out|failed)|failed to connect|No route to host|[Nn]ame or service|"
    r"Connection refused|socket.cpp.*(timed out|connect)"
)
_MOST_COLLECTIVES, _MOST_SIZES = 8, 4
_WAITING_FILES = ("torch/distributed/", "torch/autograd/graph.py", "lmft_job/distributed/group.py")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def peers_error(error: BaseException) -> PeersError | None:
    """The error as one of other ranks, if it is one of the process group, whatever it was wrapped in; else None.

    torch has no types for most of them: gloo's are RuntimeErrors.
    """
    for link in _chain(error):
        if isinstance(link, PeersError):
            return link
        kind = type(link).__name__
        if kind in _GROUP_ERRORS or (isinstance(link, RuntimeError) and _GROUP_WORDS.search(str(link))):
            said = first_line(link)
            if _UNREACHED_WORDS.search(str(link)):
                return PeersError(
                    f"the ranks do not reach each other: {said}. Besides the ports of the Service, gloo and NCCL open "
                    "ports of their own: the pods of a run need all TCP ports of each other",
                    Reason.NETWORK_UNREACHABLE,
                )
            return PeersError(f"the connection to another rank was lost: {said}")
    return None


def waits_for_others(frame: FrameType | None) -> bool:
    """Whether a thread is inside of a collective, or of a backward pass, in which other ranks are waited for."""
    while frame is not None:
        if any(part in Path(frame.f_code.co_filename).as_posix() for part in _WAITING_FILES):
            return True
        frame = frame.f_back
    return False


def doing(frame: FrameType | None) -> str:
    """Function and line in which a thread is, innermost first, and the nearest one of this package."""
    if frame is None:
        return "nothing that can be seen"
    places = [_place(frame)]
    outer = frame.f_back
    while outer is not None and "lmft_job" not in outer.f_code.co_filename:
        outer = outer.f_back
    if outer is not None and "lmft_job" not in frame.f_code.co_filename:
        places.append(_place(outer))
    return ", called by ".join(places)


def _place(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{frame.f_code.co_name} ({'/'.join(path.parts[-2:])}:{frame.f_lineno})"


def collectives(dump: bytes) -> list[str]:
    """The collectives that torch's flight recorder saw begin and not end, and the last one that ended; one a line.

    Args:
        dump: ``_dump_nccl_trace_json`` or ``_dump_fr_trace_json`` of torch, format 2.
    """
    try:
        entries = json.loads(dump).get("entries") or []
        open_, ended = [e for e in entries if not _ended(e)], [e for e in entries if _ended(e)]
        return [_collective(entry) for entry in (*ended[-1:], *open_[:_MOST_COLLECTIVES])]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return [f"the record of collectives is not understood ({type(error).__name__})"]


def recorded_collectives(modules: Mapping[str, Any]) -> list[str]:
    """The same of this process, for each backend that has a recorder; nothing where torch is not loaded."""
    recorders = modules.get("torch._C._distributed_c10d")
    lines = []
    for name, options in (("_dump_nccl_trace_json", {}), ("_dump_fr_trace_json", {"backend": "gloo"})):
        if (dump := getattr(recorders, name, None)) is not None:
            lines += collectives(dump(includeCollectives=True, onlyActive=False, **options))
    return lines


def _ended(entry: dict[str, Any]) -> bool:
    return bool(entry.get("retired")) or entry.get("state") == "completed"


def _collective(entry: dict[str, Any]) -> str:
    sizes = " ".join("×".join(map(str, size)) or "1" for size in entry["input_sizes"][:_MOST_SIZES])
    more = " …" if len(entry["input_sizes"]) > _MOST_SIZES else ""
    group = entry["process_group"][-1]
    state = "ended" if _ended(entry) else f"{entry['state']}, not ended"
    return f"{entry['profiling_name']} {int(entry['collective_seq_id'])} of {group}, sizes {sizes}{more}: {state}"
