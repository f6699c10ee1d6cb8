"""Downloads from a local server: kept only if they match, and failures are one clear line."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from certus.core.errors import ArgumentError, FileError
from certus.zoo import SOURCES, Source, download_data

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"
CONTENT = {"a.gz": b"images" * 1000, "b.gz": b"labels"}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by name below any folder; counts requests; can stall or cut the answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.stall = threading.Event()
        self.stalls = self.cuts = False

    def mirror(self, folder: str = "good") -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        folder, name = self.path.strip("/").split("/")
        data = self.server.files.get(name)
        if self.server.stalls:
            self.server.stall.wait(5)
        if folder != "good" or data is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.server.cuts else data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.stall.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tiny(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A data set `tiny` whose digests are of the content, served packed."""
    server.files = {name: gzip.compress(data) for name, data in CONTENT.items()}
    digests = {name: md5(data) for name, data in CONTENT.items()}
    source = Source(mirrors=(server.mirror(),), digests=digests, packed=False)
    monkeypatch.setitem(SOURCES, "tiny", source)
    return server


def unpacked(paths: list[Path]) -> dict[str, bytes]:
    return {path.name: gzip.decompress(path.read_bytes()) for path in paths}


def test_files_arrive_and_progress_is_told(tiny: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    paths = download_data("tiny", tmp_path, progress=lambda *step: told.append(step))
    assert [path.parent for path in paths] == [tmp_path / "tiny"] * 2
    assert unpacked(paths) == CONTENT
    sizes = {name: len(data) for name, data in tiny.files.items()}
    assert {note: (done, total) for done, total, note in told} == {
        n: (s, s) for n, s in sizes.items()
    }
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == ["a.gz", "b.gz"]


def test_good_files_are_kept_and_damaged_ones_replaced(tiny: Server, tmp_path: Path) -> None:
    a, b = download_data("tiny", tmp_path)
    a.write_bytes(a.read_bytes()[:-3])
    b.write_bytes(gzip.compress(CONTENT["b.gz"], compresslevel=0))  # packed anew: same content
    tiny.asked.clear()
    assert unpacked(download_data("tiny", tmp_path)) == CONTENT
    assert tiny.asked == ["/good/a.gz"]


def test_the_next_mirror_is_tried(tiny: Server, tmp_path: Path) -> None:
    mirrors = ["http://127.0.0.1:1/", tiny.mirror("gone"), tiny.mirror().rstrip("/")]
    assert unpacked(download_data("tiny", tmp_path, mirrors)) == CONTENT
    assert tiny.asked[:2] == ["/gone/a.gz", "/good/a.gz"]


def refused(tmp_path: Path, *arguments: object, **options: object) -> str:
    with pytest.raises(FileError) as caught:
        download_data("tiny", tmp_path, *arguments, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert not (tmp_path / "tiny").exists() or not list((tmp_path / "tiny").iterdir())
    return text


def test_wrong_bytes_are_never_kept(tiny: Server, tmp_path: Path) -> None:
    for data in (b"", b"<html>", gzip.compress(b"other"), tiny.files["a.gz"][:-4]):
        tiny.files["a.gz"] = data
        assert "not the published file (MD5 differs)" in refused(tmp_path)


def test_cut_connection(tiny: Server, tmp_path: Path) -> None:
    tiny.cuts = True
    assert "cannot download a.gz" in refused(tmp_path)


def test_every_failure_is_named(tiny: Server, tmp_path: Path) -> None:
    text = refused(tmp_path, ["http://127.0.0.1:1/", tiny.mirror("gone"), "http://127.0.0.1:x y/"])
    assert text.count("a.gz: ") == 3
    assert "refused" in text and "404" in text and "by hand" in text


def test_timeout(tiny: Server, tmp_path: Path) -> None:
    tiny.stalls = True
    assert "timed out" in refused(tmp_path, timeout=0.2)


def test_endless_files_are_cut_off(
    tiny: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certus.zoo.download._LIMIT", 100)
    assert len(tiny.files["a.gz"]) < 100 < len(CONTENT["a.gz"])
    assert "MD5 differs" in refused(tmp_path)  # unpacks beyond the limit
    monkeypatch.setattr("certus.zoo.download._LIMIT", 10)
    assert "larger than 10 bytes" in refused(tmp_path)


def test_packed_digests_are_of_the_gz_file(
    tiny: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {name: md5(data) for name, data in tiny.files.items()}
    monkeypatch.setitem(
        SOURCES, "tiny", Source(mirrors=(tiny.mirror(),), digests=digests, packed=True)
    )
    assert unpacked(download_data("tiny", tmp_path)) == CONTENT
    digests["a.gz"] = md5(CONTENT["a.gz"])  # the content's digest must not pass for the file's
    (tmp_path / "tiny" / "a.gz").unlink()
    (tmp_path / "tiny" / "b.gz").unlink()
    assert "MD5 differs" in refused(tmp_path)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="mnist, fashion-mnist"):
        download_data("digits", tmp_path)
    for mirrors in ([], ["file:///etc/"], ["ftp://host/"]):
        with pytest.raises(ArgumentError, match="mirror"):
            download_data("mnist", tmp_path, mirrors)
    with pytest.raises(ArgumentError, match="timeout"):
        download_data("mnist", tmp_path, timeout=0)


def test_folder_that_cannot_be_written(tiny: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("a file where the folder should be")
    with pytest.raises(FileError, match="cannot be written"):
        download_data("tiny", tmp_path)


def test_every_source_has_the_four_files() -> None:
    for source in SOURCES.values():
        assert [name[:11] for name in source.digests] == [
            "train-image",
            "train-label",
            "t10k-images",
            "t10k-labels",
        ]
        assert all(len(digest) == 32 for digest in source.digests.values())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared MNIST files are absent")
def test_real_mnist(server: Server, tmp_path: Path) -> None:
    server.files = {path.name: path.read_bytes() for path in SHARED.glob("*.gz")}
    paths = download_data("mnist", tmp_path, [server.mirror()])
    assert {path.name: path.read_bytes() for path in paths} == server.files
