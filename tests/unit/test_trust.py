"""Who may write what is read: the rule with every mode and owner, and real files, links and folders."""

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from hermes.config import Config, ConfigError, load
from hermes.config.trust import fault, fault_of, replaceable

ME, OTHER, NOBODYS_GROUP = 1000, 1001, 4_000_000_000


def found(mode: int, owner: int = ME, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, owner, owner, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO])
@pytest.mark.parametrize("owner", [0, ME])
def test_every_mode(owner: int, kind: int) -> None:
    """Refused is what group or others may write, and nothing else; the mode is named."""
    for mode in range(0o10000):
        reason = fault(found(mode, owner, kind), ME)
        assert (reason is not None) == bool(mode & 0o022)
        assert reason is None or reason == f"others may write to it (mode {mode:04o}): chmod go-w"


def test_the_group_of_the_owner_alone_is_no_other() -> None:
    """Where the umask is 002 every file is such a group's to write."""
    assert fault(found(0o664), ME, alone=True) is None and fault(found(0o664), ME)
    assert fault(found(0o666), ME, alone=True) == "others may write to it (mode 0666): chmod go-w"


def test_somebody_elses_where_only_we_can_put_anything() -> None:
    """A host's file in a container."""
    assert fault(found(0o644, OTHER), ME, placed=True) is None
    assert fault(found(0o664, OTHER), ME, placed=True) == "others may write to it (mode 0664): chmod go-w"


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o644, 0o666])
def test_the_owner(mode: int) -> None:
    for user, owner, trusted in ((ME, OTHER, False), (0, OTHER, False), (ME, 65534, False), (0, 0, True), (ME, ME, True), (ME, 0, True)):
        reason = fault(found(mode & ~0o022, owner), user)
        assert (reason is None) == trusted
    assert fault(found(mode, OTHER), ME) == f"it belongs to user {OTHER} (mode {mode:04o}), who is neither root nor the user that Hermes runs as, {ME}: chown it"


def test_a_device_is_the_systems() -> None:
    assert fault(found(0o666, OTHER, stat.S_IFCHR), ME) is None and fault_of("/dev/null") is None
    assert load("/dev/null").path == "/dev/null"


@pytest.mark.parametrize(("mode", "expected"), [(0o777, True), (0o1777, False), (0o775, False), (0o755, False), (0o702, True), (0o1702, False), (0o3777, False), (0o2777, True)])
def test_folders_where_files_can_be_replaced(mode: int, expected: bool) -> None:
    assert replaceable(found(mode, 0, stat.S_IFDIR)) == expected


# -- real ones


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir(mode=0o755)
    path = tmp_path / "conf" / "hermes.toml"
    path.write_text('[log]\nlevel = "error"\n', encoding="utf-8")
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    [only] = str(caught.value).splitlines()
    return only


def test_a_configuration_that_others_can_write(file: Path) -> None:
    for mode in (0o644, 0o600, 0o444, 0o755):
        file.chmod(mode)
        assert load(str(file)).log.level == "error"
    for mode in (0o646, 0o666, 0o602):
        file.chmod(mode)
        assert refusal(file) == f"{file}: others may write to it (mode {mode:04o}): chmod go-w"


def test_the_folder_counts_too(file: Path) -> None:
    file.parent.chmod(0o777)
    assert refusal(file) == f"{file}: everybody may replace it, in {file.parent} (mode 0777): chmod o-w"
    for mode in (0o1777, 0o775):
        file.parent.chmod(mode)
        assert load(str(file))


def test_of_a_link_what_it_points_to_counts(file: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: links in a folder with mode 0777, and the file in one of its own."""
    mount = tmp_path / "mount"
    mount.mkdir()
    mount.chmod(0o777)
    (mount / "..data").symlink_to(file.parent)
    (mount / "hermes.toml").symlink_to("..data/hermes.toml")
    assert load(str(mount / "hermes.toml")).log.level == "error"
    file.chmod(0o666)
    assert refusal(mount / "hermes.toml").startswith(f"{mount / 'hermes.toml'}: others may write to it (mode 0666)")
    file.chmod(0o600)
    file.parent.chmod(0o777)
    assert refusal(mount / "hermes.toml").endswith(f"everybody may replace it, in {file.parent} (mode 0777): chmod o-w")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_whose_group_it_is_is_asked_of_the_system(file: Path) -> None:
    file.chmod(0o664)
    os.chown(file, -1, NOBODYS_GROUP)
    assert refusal(file) == f"{file}: others may write to it (mode 0664): chmod go-w"
    own = next((user for user in pwd.getpwall() if user.pw_uid and alone(user)), None)
    if own is not None:
        os.chown(file, own.pw_uid, own.pw_gid)
        assert load(str(file))


def alone(user: pwd.struct_passwd) -> bool:
    others = [other for other in pwd.getpwall() if other.pw_gid == user.pw_gid and other.pw_name != user.pw_name]
    return not others and any(group.gr_gid == user.pw_gid and not group.gr_mem for group in grp.getgrall())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user(file: Path) -> None:
    os.chown(file, OTHER, OTHER)
    assert load(str(file)), "nobody but us can have put it there"
    file.parent.chmod(0o1777)
    assert refusal(file) == f"{file}: it belongs to user {OTHER} (mode 0644), who is neither root nor the user that Hermes runs as, 0: chown it"


def test_the_clients_file(file: Path) -> None:
    clients = file.with_name("clients.toml")
    clients.write_text(f'[clients.a]\nkey_sha256 = "{"ab" * 32}"\n', encoding="utf-8")
    file.write_text('[server]\nlisten = ":1"\nclients_file = "clients.toml"\n', encoding="utf-8")
    read: Config = load(str(file))
    assert read.clients[0].name == "a"
    clients.chmod(0o606)
    assert refusal(file) == f"{clients}: others may write to it (mode 0606): chmod go-w", "and nothing of an open door"


def test_the_folder_of_the_usage(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    file.write_text(f'[server]\nstate_dir = "{folder}"\n', encoding="utf-8")
    for mode in (0o700, 0o755):
        folder.chmod(mode)
        assert load(str(file)).server.state_dir == str(folder)
    for mode in (0o707, 0o777, 0o1777, 0o2777):
        folder.chmod(mode)
        text = refusal(file)
        assert text.startswith(f"{file}:2: 'state_dir' in [server] is \"{str(folder)[:60]}") and text.endswith(f": others may write to it (mode {mode:04o}): chmod go-w")
    folder.chmod(0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    folder.rename(tmp_path / "open" / "state")
    assert "everybody may replace it" in refusal_of_folder(tmp_path / "open" / "state")
    assert refusal_of_folder(tmp_path / "open").startswith("environment: HERMES_SERVER_STATE_DIR is ")


def refusal_of_folder(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, {"HERMES_SERVER_STATE_DIR": str(folder)})
    return str(caught.value)


def test_what_cannot_be_seen_is_not_trusted(tmp_path: Path) -> None:
    assert fault_of(str(tmp_path / "none")) == "cannot see who may write to it: No such file or directory"
    assert fault_of(str(tmp_path)) is None
