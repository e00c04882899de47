"""Event files for TensorBoard in the run's folder, also in a bucket: each part is stored once and does not change.

The file format is TensorBoard's: records of ``Event`` messages (tensorflow/core/util/event.proto), which tensorboardX
writes. An attempt begins with the history of its checkpoint and replaces what earlier attempts left, so that no step is
there twice.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from lmft_api.wire.layout import TENSORBOARD
from lmft_job.storage import Store
from lmft_job.trackers.points import Point, Position
from lmft_job.trackers.tracker import Tracker

_FIRST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS_IN_BUCKET, _LONGEST_PAUSE_SECONDS = 2.0, 30.0, 600.0
_PARTS_AT_FIRST_PAUSE = 20
"""After so many parts each takes longer: a run of ten days leaves about 1,500 of them, not 30,000."""


class TensorBoard(Tracker):
    """See :class:`lmft_job.trackers.tracker.Tracker`.

    Args:
        store: rooted at the run's folder.
        folder: scratch space.
        attempt: its number.
        require: raises JobError once a later attempt has begun, which then writes these files.
    """

    name = "TensorBoard"
    most = 20_000
    in_folder = True

    def __init__(self, store: Store, folder: Path, attempt: int, require: Callable[[], None]) -> None:
        self._store, self._require = store, require
        self._path = folder / "events"
        self._attempt = attempt
        self._part = 0
        self._earlier: list[str] = []
        self._in_bucket = not store.uri.startswith("file:")

    @override
    def open(self) -> Position:
        self._earlier = [item.key for item in self._store.list(f"{TENSORBOARD}/")]
        return Position()

    @override
    def send(self, points: Sequence[Point]) -> None:
        # Readers take the parts in the order of their names.
        key = f"{TENSORBOARD}/events.out.tfevents.{self._attempt:06d}.{self._part:06d}"
        write_events(self._path, points)
        self._require()
        self._store.put_file(key, self._path)
        self._part += 1
        if earlier := [other for other in self._earlier if other != key]:
            self._store.delete(earlier)
        self._earlier = []

    @override
    def close(self, error: BaseException | None) -> None:
        pass

    @override
    def pause(self) -> float:
        first = _FIRST_PAUSE_SECONDS_IN_BUCKET if self._in_bucket else _FIRST_PAUSE_SECONDS
        return min(_LONGEST_PAUSE_SECONDS, first * max(1.0, self._part / _PARTS_AT_FIRST_PAUSE))


def write_events(path: Path, points: Sequence[Point]) -> None:
    """Write an event file."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    records = RecordWriter(str(path))
    try:
        records.write(Event(wall_time=points[0].time, file_version="brain.Event:2").SerializeToString())
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            event = Event(wall_time=point.time, step=point.step, summary=Summary(value=values))
            records.write(event.SerializeToString())
    finally:
        records.close()
