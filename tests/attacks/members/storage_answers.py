"""What a storage service may answer, by malice or by mistake: listings of what was not asked for, XML that is none,
keys that lead elsewhere, lengths that are wrong, bodies of no end, redirects, and good answers with bytes changed.

The effect would be an exception other than a run's own end in words, a hang, memory that grows, a request to another
host or for another prefix, or a file outside of where it was to go.
"""

import os
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from support.limits import within_seconds

from attacks.hostile_s3 import Answer, service
from attacks.registry import Attack
from lmft_job.attempt.journal import begun
from lmft_job.checkpoints import newest_verified, prune
from lmft_job.errors import JobError
from lmft_job.storage import Store, expand, fetch_folder
from lmft_job.storage.notes import read_note

HEAD = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
TIME = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
STEP = "root/checkpoints/attempt-0001/step-00000020"


def entry(key: str, size: str = "1", time: str = TIME, tag: str = "Contents") -> str:
    return f"<{tag}><Key>{key}</Key>{time}<Size>{size}</Size></{tag}>"


def listing(*entries: str, truncated: str = "false", token: str = "") -> str:
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return f"{HEAD}<IsTruncated>{truncated}</IsTruncated>{more}{''.join(entries)}</ListBucketResult>"


KEYS = [
    "../etc/passwd", "/etc/passwd", "root/../../etc/passwd", "root//etc/passwd", "root/a/../../../x", "root/.",
    "root/..", "other/MANIFEST.json", "root", "root/", "", "rootx/a", "root/checkpoints/../../../x",
    f"{STEP}/../MANIFEST.json",
    f"{STEP}//MANIFEST.json", "root/checkpoints/attempt-99999999999999999999/step-1/MANIFEST.json",
    "root/checkpoints/attempt-" + "9" * 5000 + "/step-1/MANIFEST.json",
    "root/checkpoints/attempt-１/step-１/MANIFEST.json",
    "root/checkpoints/attempt--1/step--1/MANIFEST.json", f"{STEP}/MANIFEST.json",
    "root/attempts/attempt-" + "9" * 5000 + ".json",
    "root/a&#10;b", "root/a%00b", "root/a%2F..%2F..%2Fx", "root/\\..\\..\\x", "root/" + "a/" * 5000,
    "root/" + "x" * 100_000,
]  # fmt: skip
BODIES = {
    **{f"the key {key[:60]!r}": listing(entry(key)) for key in KEYS},
    **{
        f"the size {size[:20]!r}": listing(entry("root/a", size))
        for size in ("-1", "", "x", "1e999", "9" * 5000, "NaN")
    },
    **{
        f"the time {time[:40]!r}": listing(entry("root/a", "1", time and f"<LastModified>{time}</LastModified>"))
        for time in (
            "",
            "x",
            "99999-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-23:59",
            "-1",
            "9" * 50,
        )
    },
    "no key": listing(f"<Contents>{TIME}<Size>1</Size></Contents>"),
    "two keys in one": listing("<Contents><Key>root/a</Key><Key>root/b</Key></Contents>"),
    "keys in keys": listing("<Contents><Key><Key>root/a</Key></Key></Contents>"),
    "no end": listing(entry("root/a"), truncated="true"),
    "the same page for ever": listing(entry("root/a"), truncated="true", token="again"),
    "truth that is none": listing(entry("root/a"), truncated="maybe"),
    "nothing": "",
    "a page of a proxy's": "<html><body>502 Bad Gateway</body></html>",
    "XML cut short": listing(entry("root/a"))[:-30],
    "XML of bytes": "\x00\x01\x02\xff",
    "XML of depth": HEAD + "<a>" * 20_000 + "</a>" * 20_000 + "</ListBucketResult>",
    "entities that grow": '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">'
    '<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">]>'
    + listing(entry("root/&f;&f;&f;&f;")).removeprefix('<?xml version="1.0"?>'),
    "entities of files": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    + listing(entry("root/&a;")).removeprefix('<?xml version="1.0"?>'),
    "another answer": "<CopyObjectResult><ETag>x</ETag></CopyObjectResult>",
    "JSON": '{"Contents": [{"Key": "root/a"}]}',
    "an error without a code": "<Error></Error>",
    "an error of depth": "<Error>" + "<Code>" * 5000 + "</Code>" * 5000 + "</Error>",
    "uploads without names": "<ListMultipartUploadsResult><Upload></Upload></ListMultipartUploadsResult>",
    "uploads elsewhere": "<ListMultipartUploadsResult><Upload><Key>other/a</Key><UploadId>x</UploadId></Upload>"
    "</ListMultipartUploadsResult>",
}
STATUSES = (200, 404, 418)
ENTITIES = '<!DOCTYPE x [<!ENTITY a "' + "a" * 50_000 + '">]>'
PAGES = {
    "pages of no end, without an object": [
        listing(truncated="true", token=f"t{n}") for n in range(200)
    ],
    "pages of no end, with one object": [
        listing(entry("root/a"), truncated="true", token=f"t{n}") for n in range(200)
    ],
    "uploads of no end": [
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>"
        f"<NextKeyMarker>root/{n}</NextKeyMarker><NextUploadIdMarker>x</NextUploadIdMarker></ListMultipartUploadsResult>"
        for n in range(200)
    ],
}  # fmt: skip
CONTENT = b"{" + b" " * 200_000 + b"}"
HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    **{
        f"the range {value[:40]!r}": (("Content-Range", value),)
        for value in (
            "bytes 0-65535/x", "bytes 0-65535/*", "bytes */0", "bytes 0-65535/-1", "x", "", "bytes 5-10/20",
            "bytes 0-65535/" + "9" * 14, "bytes 0-65535/" + "9" * 5000, "bytes 0-65535/65536/65537", "bytes 0-65535/１",
            "bytes 0-65535/70000", "bytes 0-65535/0",
        )
    },
    **{
        f"the length {value[:40]!r}": (("Content-Length", value),)
        for value in ("0", "1", "-1", "x", "300000", "9" * 12, "9" * 5000, "1, 1", "0x10", "")
    },
    "two lengths": (("Content-Length", "5"), ("Content-Length", "50")),
    "no length": (("Transfer-Encoding", "identity"),),
    "chunks that are none": (("Transfer-Encoding", "chunked"),),
    "chunks and a length": (("Transfer-Encoding", "chunked"), ("Content-Length", "10")),
    **{
        f"the header {name}: {value[:40]!r}": ((name, value),)
        for name, value in (
            ("ETag", ""), ("ETag", "x" * 50_000), ("ETag", "\"0\", \"1\""), ("Last-Modified", "x"),
            ("Last-Modified", "Mon, 99 Foo 99999"), ("Expires", "x"), ("Date", "x"), ("Content-Encoding", "gzip"),
            ("x-amz-checksum-sha256", "x"), ("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-meta-\xe9", "\xff"),
            ("x-amz-delete-marker", "maybe"), ("x-amz-missing-meta", "x"), ("x-amz-mp-parts-count", "-"),
            ("Content-Type", "x/y; charset=none"), ("Retry-After", "999999"), ("Connection", "upgrade"),
            ("x-amz-object-lock-retain-until-date", "x"), ("x-amz-tagging-count", "1e9"),
            ("x-amz-bucket-region", "../x"),
        )
    },
}  # fmt: skip
RAW = {
    "nothing at all": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a status": b"HTTP/1.1 20",
    "a status of words": b"HTTP/1.1 fine OK\r\n\r\n",
    "a status of 999": b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
    "a status of 1": b"HTTP/1.1 1 x\r\n\r\n",
    "another version": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "headers that are none": b"HTTP/1.1 200 OK\r\n\x00\xff\r\n: x\r\nContent-Length: 0\r\n\r\n",
    "a body cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    "chunks cut short": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
    "a chunk of -1": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nshort",
    "half an answer and one more": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}
CHUNKED = (("Transfer-Encoding", "chunked"),)
ENDLESS = {
    "a status line of no end": Answer(raw=b"HTTP/1.1 200 " + b"x" * 65536, again=True),
    "a header of no end": Answer(raw=b"HTTP/1.1 200 OK\r\nx: " + b"x" * 65536, again=True),
    "headers of no end": Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000, again=True),
    "a body of no end": Answer(200, (("Content-Length", "999999999999"),), b"x" * 65536, again=True),
    "a body of no end and no length": Answer(200, (("Transfer-Encoding", "identity"),), b"x" * 65536, again=True),
    "an error of no end": Answer(404, (("Content-Length", "999999999999"),), b"x" * 65536, again=True),
    "chunks of no end": Answer(200, CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", again=True),
    "a chunk's length of no end": Answer(200, CHUNKED, b"0" * 65536, again=True),
}  # fmt: skip
HEAVY = {
    "a listing of 40 MiB": listing(*[entry(f"root/{'x' * 1000}-{number}") for number in range(36_000)]),
    "a listing of a million tags": listing("<a/>" * 1_000_000),
    "entities of 50 KB, 300 times": ENTITIES + HEAD.partition("?>")[2]
    + f"<Contents><Key>root/{'&a;' * 300}</Key></Contents></ListBucketResult>",
}  # fmt: skip


def read(store: Store, home: Path) -> object:
    return [item for item in store.list("") if item.size < 0 or ".." in item.key.split("/")]


def sent(store: Store, home: Path) -> object:
    """6 MiB, in parts."""
    (home / "large").touch()
    os.truncate(home / "large", 6 * 1024 * 1024)
    store.put_file("a", home / "large")
    return None


def nothing(action: Callable[[Store, Path], object]) -> Callable[[Store, Path], object]:
    return lambda store, home: (action(store, home), None)[1]


VERBS: dict[str, Callable[[Store, Path], object]] = {
    "listed": read,
    "as a small object": nothing(lambda store, home: store.get_bytes("a")),
    "as a note": nothing(lambda store, home: read_note(store, "a", lambda note: int(note["step"]))),
    "as a file": nothing(lambda store, home: store.get_file("a", home / "file")),
    "expanded": nothing(lambda store, home: expand(store, "**/*")),
    "as a folder": nothing(lambda store, home: fetch_folder(store, "", home / "folder")),
    "as checkpoints": nothing(lambda store, home: newest_verified(store, home / "resume", lambda words: None)),
    "as attempts": nothing(lambda store, home: begun(store)),
    "pruned": nothing(lambda store, home: prune(store, 1, 2)),
    "swept": nothing(lambda store, home: store.abort_incomplete()),
    "as the answer to a manifest": nothing(lambda store, home: store.put_if_absent("a", b"1")),
    "as the answer to a probe": nothing(lambda store, home: store.probe_write()),
    "as the answer to a removal": nothing(lambda store, home: store.delete(["a", "b/c"])),
    "as the answer to a file": sent,
}
LISTS = ("listed", "as a folder", "as checkpoints", "swept")
READS = ("as a small object", "as a file")


def attacks() -> Iterator[Attack]:
    """Every answer to the verbs that it concerns."""
    for what, body in BODIES.items():
        for status in STATUSES:
            for verb in VERBS:
                yield attack(f"{what}, {status}", Answer(status, body=body.encode("utf-8", "replace")), verb)
    for what, headers in HEADERS.items():
        for status in (200, 206):
            for verb in (*READS, "as the answer to a file"):
                yield attack(f"{what}, {status}", Answer(status, headers, CONTENT), verb)
    for what, raw in RAW.items():
        for verb in VERBS:
            yield attack(what, Answer(raw=raw), verb)
    for what, answer in ENDLESS.items():
        for verb in (*LISTS, *READS, "as the answer to a manifest"):
            yield attack(what, answer, verb)
    for what, pages in PAGES.items():
        for verb in LISTS:
            yield attack(what, Answer(pages=tuple(page.encode() for page in pages)), verb)
    for what, body in HEAVY.items():
        for verb in LISTS:
            yield attack(what, Answer(body=body.encode()), verb)
    yield from redirects()
    yield from mutations()


def redirects() -> Iterator[Attack]:
    """To another host, with every status and in every way that a service of S3 has."""
    place = service().elsewhere
    for status in (300, 301, 302, 303, 307, 308, 400, 403):
        for what, headers in {
            "Location": (("Location", f"{place}/root/a"),),
            "Location without a scheme": (("Location", place.removeprefix("http:") + "/root/a"),),
            "a region": (("x-amz-bucket-region", f"{place.removeprefix('http://')}/#"), ("Location", place)),
        }.items():
            host = place.removeprefix("http://")
            body = f"<Error><Code>PermanentRedirect</Code><Endpoint>{host}</Endpoint><Region>{host}/#</Region></Error>"
            for verb in ("listed", *READS, "as the answer to a manifest", "as the answer to a file"):
                yield attack(f"{status} with {what}", Answer(status, headers, body.encode()), verb)


def mutations() -> Iterator[Attack]:
    """A listing of checkpoints as S3 answers it, and of uploads, with a few bytes lost, doubled or exchanged."""
    good = {
        "listed": listing(*[entry(f"{STEP[:-2]}{n}/MANIFEST.json", "300") for n in range(10, 14)], token="x"),
        "swept": "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>root/a</Key><UploadId>x"
        "</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
    }
    for kind, text in good.items():
        for seed in range(150):
            body = mutated(text.encode(), random.Random(seed))
            for verb in (kind, "as checkpoints") if kind == "listed" else (kind,):
                yield attack(f"{kind} changed by {seed}", Answer(body=body), verb)


def mutated(text: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(text))
        end = min(len(text), start + chance.choice((1, 2, 8, 40)))
        piece = chance.choice(
            (b"", text[start:end] * 2, bytes(chance.randrange(256) for _ in range(end - start)), b"<", b"&#0;", b"-9")
        )
        text = text[:start] + piece + text[end:]
    return text


def attack(what: str, answer: Answer, verb: str) -> Attack:
    return Attack(f"{what}, {verb}", partial(answered, answer, verb))


def answered(answer: Answer, verb: str) -> str | None:
    """Let a verb of storage have the answer, whatever it asks."""
    asked = service()
    asked.answers(answer)
    before = peak_mebibytes()
    with tempfile.TemporaryDirectory() as name, within_seconds(60):
        home = Path(name) / "a" / "b"
        home.mkdir(parents=True)
        try:
            effect = VERBS[verb](asked.store(), home)
        except JobError as error:
            effect = f"words of {len(str(error)):,} characters" if len(str(error)) > 8_000 else None
        outside = [path for path in Path(name).rglob("*") if path.is_file() and not path.is_relative_to(home)]
    strange = [request for request in asked.asked if request.startswith("DELETE") and "/root/" not in request]
    grown = peak_mebibytes() - before
    heavy = f"{grown} MiB more memory" if grown > MOST_MEBIBYTES else None
    found = effect or outside or strange or asked.asked_elsewhere or heavy
    return str(found)[:300] if found else None


MOST_MEBIBYTES = 200


def peak_mebibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
