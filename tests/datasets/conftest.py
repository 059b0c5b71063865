"""Small archives for the tests of data sets."""

import hashlib
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aliasing.datasets.archives import Archive


def pack(path, files):
    """A zip or tar archive, packed as its name says, of {name: bytes}; returns it as an Archive with its checksum."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("folder/", b"")
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:]}") as packed:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    return Archive(path.name, "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which this machine serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
