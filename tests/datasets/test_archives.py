"""Archives: found, checked, streamed, decoded once; what is wrong is named together with its remedy."""

import socket

import pytest
import torch

from aliasing.datasets import archives
from aliasing.datasets.archives import Archive
from aliasing.errors import DataError
from tests.datasets.conftest import pack


@pytest.mark.parametrize("name", ["a.tar.xz", "a.zip"])
def test_members_are_streamed_in_order_and_a_truncated_archive_is_named(tmp_path, name):
    path, noise = tmp_path / name, torch.randn(3000, generator=torch.Generator().manual_seed(0)).numpy().tobytes()
    archive = pack(path, files := {"b/2.bin": noise, "a/1.txt": b"one"})
    assert [*archives.members(path)] == [*files.items()] and [*tmp_path.iterdir()] == [path]
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataError, match=rf"{name}.*damaged.*{archive.checksum[7:]}"):
        archives.verify(archive, tmp_path)
    with pytest.raises(DataError, match=rf"{name} cannot be unpacked"):
        list(archives.members(path))


def test_the_first_complete_form_is_found(tmp_path, monkeypatch):
    forms = [(Archive("best.zip", ""),), (Archive("one.zip", ""), Archive("two.zip", ""))]
    monkeypatch.setitem(archives.ARCHIVES, "things", forms)
    (tmp_path / "one.zip").touch()
    wanted = "things: looked for best.zip or one.zip with two.zip in"
    with pytest.raises(DataError, match=f"{wanted} {tmp_path} .*ALIASING_DATA.*`aliasing data things`"):
        archives.find("things", tmp_path)
    (tmp_path / "two.zip").touch()
    assert archives.find("things", tmp_path) == forms[1]
    (tmp_path / "best.zip").touch()
    assert archives.find("things", tmp_path) == forms[0]


def test_the_decoded_copy_is_made_once_for_each_key_and_anew_where_it_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIASING_CACHE", str(tmp_path))
    calls = []

    def build():
        calls.append(1)
        return {"images": torch.arange(4, dtype=torch.uint8)}, ["é", "b"]

    for _ in range(2):
        tensors, classes = archives.cached("things", ["sum", 64], build)
        assert tensors["images"].tolist() == [0, 1, 2, 3]
        assert classes == ["é", "b"]
    assert len(calls) == 1
    (copy,) = tmp_path.iterdir()
    copy.write_bytes(copy.read_bytes()[:20])
    with pytest.warns(UserWarning, match="is damaged"):
        tensors, _ = archives.cached("things", ["sum", 64], lambda: ({"images": torch.zeros(2)}, []))
    assert tensors["images"].tolist() == [0, 0]
    assert archives.cached("things", ["sum", 64], build)[0]["images"].tolist() == [0, 0]
    assert copy.with_name(f"{copy.name}.damaged").stat().st_size == 20
    archives.cached("things", ["sum", 32], build)
    archives.cached("things", ["other sum", 64], build)
    assert len(calls) == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_a_download_is_checked_and_appears_whole_or_not_at_all(served, tmp_path):
    (folder, address), target = served, tmp_path / "downloads"
    archive = pack(folder / "source.zip", {"a.txt": b"a"})
    good = Archive("got.zip", archive.checksum, f"{address}/source.zip")
    archives.download("things", good, target)
    assert (target / "got.zip").read_bytes() == (folder / "source.zip").read_bytes()
    bad = Archive("bad.zip", "sha256:" + "0" * 64, f"{address}/source.zip")
    with pytest.raises(DataError, match="damaged"):
        archives.download("things", bad, target)
    with pytest.raises(DataError, match=r"cannot download .*nowhere\.zip.*404.*by hand"):
        archives.download("things", Archive("a.zip", "md5:0", f"{address}/nowhere.zip"), target)
    assert [path.name for path in target.iterdir()] == ["got.zip"]


def test_no_network_is_a_clean_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(DataError, match="timed out"):
            archives.download("things", Archive("a.zip", "md5:0", address), tmp_path, timeout=0.2)
    with pytest.raises(DataError, match=r"cannot download .*refused.*by hand"):
        archives.download("things", Archive("a.zip", "md5:0", address), tmp_path)
    with pytest.raises(DataError, match="no address"):
        archives.download("things", Archive("a.zip", "md5:0"), tmp_path)
