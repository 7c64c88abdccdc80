import os
import stat
from pathlib import Path

import pytest

from zeroskip.errors import InputError
from zeroskip.files import replacing, write_bytes, write_text


def test_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é")
    assert (tmp_path / "a").read_bytes() == "é".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises((error, InputError)), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_keeps_the_mode_and_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "a", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_refuses_folders_devices_and_missing_folders(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "a folder"),
        (Path(os.devnull), "regular"),
        (tmp_path / "no" / "a", "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            write_bytes(path, b"")
