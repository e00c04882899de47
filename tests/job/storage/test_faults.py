"""When storage refuses, fails or breaks off: what a run says, its reason and its exit code."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import EndpointConnectionError
from support.faults import Fault, Proxy, every, first, proxy
from support.s3server import BUCKET, Keys, S3Server

from lmft_api.reasons import ExitCode, Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.storage import Store, open_store
from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.s3_retries import Patience
from lmft_job.storage.store import PURPOSES

pytestmark = pytest.mark.usefixtures("short_waits")

PART = 5 * 1024 * 1024  # the smallest that S3 takes
QUICK = S3Settings(part_bytes=PART, connect_seconds=0.5, read_seconds=0.5, attempts=2)
PATIENT = S3Settings(part_bytes=PART, connect_seconds=2, read_seconds=5, attempts=10)

Opener = Callable[..., Store]


@pytest.fixture
def opened(s3: S3Server, tmp_path: Path) -> Opener:
    """Opens the bucket, or another, with other keys, through another endpoint."""

    def open_one(
        endpoint: str | None = None,
        keys: Keys | None = None,
        bucket: str = BUCKET,
        purpose: str = "output",
        settings: S3Settings = QUICK,
    ) -> Store:
        secret = s3.secret(tmp_path / "secret", keys, endpoint)
        return S3Store.connect(bucket, tmp_path.name, PURPOSES[purpose], secret, settings)

    return open_one


@pytest.fixture
def trouble(s3: S3Server) -> Iterator[Proxy]:
    """A proxy before the server whose rule a test sets."""
    with proxy(s3.endpoint) as between:
        yield between


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four parts, none like the other."""
    path = tmp_path_factory.mktemp("large") / "weights"
    path.write_bytes(os.urandom(3 * PART + 1))
    return path


def refused(action: Callable[[], object], reason: Reason = Reason.STORAGE_ACCESS_DENIED) -> str:
    with pytest.raises(RefusedError) as caught:
        action()
    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.REFUSED, reason)
    return str(caught.value)


def unavailable(action: Callable[[], object]) -> str:
    with pytest.raises(UnavailableError) as caught:
        action()
    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.UNAVAILABLE, Reason.STORAGE_UNAVAILABLE)
    return str(caught.value)


def test_an_unknown_access_key_is_refused_before_anything_else(opened: Opener) -> None:
    said = refused(opened(keys=Keys("nobody", "nothing")).probe_write)

    assert "spec.output.uri: cannot write s3://models/" in said
    assert "the access key is unknown there (InvalidAccessKeyId)" in said
    assert "Check the keys in spec.output.credentialsSecretRef" in said


def test_a_wrong_secret_key_is_refused(opened: Opener, s3: S3Server) -> None:
    said = refused(opened(keys=Keys(s3.owner.access, "wrong")).probe_write)

    assert "the secret key does not match the access key (SignatureDoesNotMatch)" in said


def test_keys_that_may_only_read_are_refused_by_the_probe(opened: Opener, s3: S3Server) -> None:
    opened().put_bytes("a", b"1")
    reader = opened(keys=s3.reader)

    said = refused(reader.probe_write)

    assert reader.get_bytes("a") == b"1"
    assert "access denied" in said
    assert "Check the keys in spec.output.credentialsSecretRef, and what they may do in spec.output.uri" in said


def test_a_missing_bucket_is_refused_by_name(opened: Opener, s3: S3Server, tmp_path: Path) -> None:
    store = opened(bucket="no-such-bucket")
    (tmp_path / "file").write_bytes(b"1")

    for action in (
        store.probe_write,
        lambda: store.list(),
        lambda: store.get_bytes("a"),
        lambda: store.put_file("a", tmp_path / "file"),
    ):
        said = refused(action)
        assert said == (
            f"spec.output.uri: there is no bucket 'no-such-bucket' at {s3.endpoint}. Create it, or fix the address."
        )


@pytest.mark.parametrize(
    ("purpose", "field", "absent", "denied"),
    [
        ("dataset", "spec.dataset.files", Reason.DATASET_NOT_FOUND, Reason.DATASET_ACCESS_DENIED),
        ("model", "spec.model.name", Reason.MODEL_NOT_FOUND, Reason.MODEL_ACCESS_DENIED),
    ],
)
def test_reading_data_and_models_gives_their_own_reasons(
    opened: Opener, tmp_path: Path, purpose: str, field: str, absent: Reason, denied: Reason
) -> None:
    missing = refused(lambda: opened(purpose=purpose).get_file("none", tmp_path / "copy"), absent)
    bucket = refused(lambda: opened(purpose=purpose, bucket="no-such-bucket").list(), absent)
    keys = refused(lambda: opened(purpose=purpose, keys=Keys("nobody", "x")).list(), denied)

    assert missing.startswith(f"{field}: there is no object s3://models/")
    assert bucket.startswith(f"{field}: there is no bucket")
    assert f"Check the keys in {field.rpartition('.')[0]}.credentialsSecretRef" in keys


def test_a_secret_that_lacks_a_key_says_which(s3: S3Server, tmp_path: Path) -> None:
    secret = s3.secret(tmp_path / "secret")
    (secret / "AWS_SECRET_ACCESS_KEY").unlink()

    said = refused(lambda: open_store("s3://models", secret))

    assert said == "spec.output.credentialsSecretRef: the Secret lacks AWS_SECRET_ACCESS_KEY."


def test_without_any_keys_it_says_how_to_give_them(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*(name for name in os.environ if name.startswith("AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)

    said = refused(open_store("s3://models").probe_write)

    assert "without keys. Set spec.output.credentialsSecretRef" in said


def test_keys_and_endpoint_come_from_the_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)

    store = open_store("s3://models/from-environment")
    store.put_bytes("a", b"1")

    assert store.get_bytes("a") == b"1"


def test_an_endpoint_that_is_no_address_is_refused(opened: Opener) -> None:
    said = refused(lambda: opened(endpoint="minio"))

    assert "AWS_ENDPOINT_URL is not an address such as https://storage.example:9000" in said


def test_an_unreachable_endpoint_is_worth_another_attempt(opened: Opener) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        said = unavailable(opened(endpoint).probe_write)

    assert f"{endpoint} cannot be reached, after all retries" in said


def test_a_silent_endpoint_times_out(opened: Opener, trouble: Proxy) -> None:
    trouble.rule = every(1, Fault.SILENT)

    said = unavailable(opened(trouble.endpoint).probe_write)

    # The proxy never answers: that there is an end at all is the time-out's doing.
    assert "does not answer in time, after all retries" in said
    assert [fault for fault, _ in trouble.made] == [Fault.SILENT] * QUICK.attempts


@pytest.mark.parametrize(("fault", "status"), [(Fault.UNAVAILABLE, 503), (Fault.TOO_MANY, 429)])
def test_a_server_that_keeps_failing_is_asked_again_and_then_told(
    opened: Opener, trouble: Proxy, fault: Fault, status: int
) -> None:
    trouble.rule = every(1, fault)

    said = unavailable(opened(trouble.endpoint).probe_write)

    assert f"kept answering {status} (made by the proxy) after all retries" in said
    assert len(trouble.seen) == QUICK.attempts


@pytest.mark.parametrize("answered", [False, True])
def test_a_service_that_has_answered_is_waited_for_longer_than_it_takes_to_start_anew(answered: bool) -> None:
    refused = EndpointConnectionError(endpoint_url="http://127.0.0.1:1", error="refused")
    patience = Patience(most=10)
    if answered:
        patience.answered(SimpleNamespace(status_code=404))
    patience.answered(SimpleNamespace(status_code=503))

    pauses = [patience.pause_seconds(caught_exception=refused, attempts=number) for number in range(1, 11)]

    assert pauses[-1] is None
    if answered:
        assert 38 < sum(pause or 0 for pause in pauses) < 80
    else:
        assert pauses == [None] * 10


def test_what_will_not_pass_is_left_to_botocore() -> None:
    patience = Patience(most=10)
    patience.answered(SimpleNamespace(status_code=200))

    assert patience.pause_seconds((SimpleNamespace(status_code=403), {}), 1) is None
    assert patience.pause_seconds((SimpleNamespace(status_code=507), {}), 1) is None
    assert patience.pause_seconds(caught_exception=ValueError(), attempts=1) is None


def test_a_service_without_space_says_so(opened: Opener, trouble: Proxy) -> None:
    trouble.rule = every(1, Fault.FULL, "PUT")

    said = unavailable(opened(trouble.endpoint).probe_write)

    assert "no space left in that storage" in said
    assert "What was complete before is kept" in said


@pytest.mark.parametrize(
    "fault", [Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.CUT_REQUEST, Fault.CUT_ANSWER, Fault.LOST_ANSWER]
)
def test_trouble_on_every_third_request_changes_nothing(
    opened: Opener, trouble: Proxy, large: Path, tmp_path: Path, fault: Fault
) -> None:
    trouble.rule = every(3, fault)
    store = opened(trouble.endpoint, settings=PATIENT)

    sent = store.put_file("weights", large)
    won = store.put_if_absent("MANIFEST.json", b"{}")
    received = store.get_file("weights", tmp_path / "copy")

    assert trouble.made
    assert won
    assert sent == received
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert [item.key for item in store.list()] == ["MANIFEST.json", "weights"]
    assert store.abort_incomplete() == 0


def test_a_file_of_more_parts_than_connections_comes_whole(opened: Opener, large: Path, tmp_path: Path) -> None:
    store = opened(settings=replace(PATIENT, connections=1))

    assert store.put_file("weights", large) == store.get_file("weights", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()


def test_a_small_object_survives_an_answer_cut_in_the_middle(opened: Opener, trouble: Proxy) -> None:
    store = opened(trouble.endpoint)
    store.put_bytes("small", b"0123456789")
    trouble.rule = first(1, Fault.CUT_ANSWER, "GET", "small")

    assert store.get_bytes("small") == b"0123456789"
    assert len(trouble.made) == 1


def test_a_conditional_put_whose_answer_was_lost_recognises_itself(opened: Opener, trouble: Proxy) -> None:
    store = opened(trouble.endpoint)
    trouble.rule = first(1, Fault.LOST_ANSWER, "PUT")

    assert store.put_if_absent("MANIFEST.json", b"mine")
    assert [request.method for request in trouble.seen] == ["PUT", "PUT", "GET"], "412, then read back"
    assert not store.put_if_absent("MANIFEST.json", b"other")


def test_a_failed_upload_aborts_its_parts(opened: Opener, trouble: Proxy, large: Path) -> None:
    store = opened(trouble.endpoint)
    trouble.rule = lambda request: Fault.UNAVAILABLE if "partNumber=3" in request.path else None

    unavailable(lambda: store.put_file("weights", large))

    assert any(request.method == "DELETE" and "uploadId=" in request.path for request in trouble.seen)
    assert store.abort_incomplete() == 0
    assert store.list() == []


def test_what_a_killed_writer_left_half_sent_is_aborted(opened: Opener, s3: S3Server, tmp_path: Path) -> None:
    for key in (f"{tmp_path.name}/attempt-0001/a", f"{tmp_path.name}/attempt-0002/b"):
        s3.client().create_multipart_upload(Bucket=BUCKET, Key=key)
    store = opened()

    assert store.abort_incomplete("attempt-0001/") == 1
    assert store.abort_incomplete() == 1
    assert store.abort_incomplete() == 0


def test_leftovers_of_a_killed_writer_in_a_folder_are_no_objects_and_can_be_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put_bytes("attempt-0001/a", b"1")
    (tmp_path / "attempt-0001" / ".lmft-part-123").write_bytes(b"half")

    assert [item.key for item in store.list()] == ["attempt-0001/a"]
    assert store.abort_incomplete("attempt-0001/") == 1
    assert [path.name for path in (tmp_path / "attempt-0001").iterdir()] == ["a"]


def test_every_failure_is_one_line(opened: Opener) -> None:
    with pytest.raises(JobError) as caught:
        opened(keys=Keys("nobody", "nothing")).probe_write()

    assert "\n" not in str(caught.value)


def test_a_folder_that_a_deletion_nearby_has_removed_is_made_again() -> None:
    patience = Patience(most=10)
    lost = (SimpleNamespace(status_code=409), {"Error": {"Code": "ExistingObjectIsDirectory"}})

    assert [patience.pause_seconds(lost, attempts) is not None for attempts in (1, 2, 3, 4, 5)] == [True] * 3 + [
        False
    ] * 2
    assert patience.pause_seconds((SimpleNamespace(status_code=409), {"Error": {"Code": "Conflict"}}), 1) is None
