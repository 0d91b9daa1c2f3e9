"""Whether what is read from a file or folder is the word of root and of the user that Hermes runs as, and of nobody else.

Who can write the configuration can send every prompt elsewhere, and let in whom he likes; who can write beside the usage file can have SQLite
roll it back. So what others may write is refused, as OpenSSH refuses such keys, with two things that OpenSSH or Debian's allow for: a group that
is the owner's alone, because many systems give every file to such a group and let it write (umask 002); and a file of somebody else's in a
folder where only root and the user can put anything, because that is how a file of the host's comes into a container. `fault` and
`replaceable` are pure; the others ask the system.
"""

import grp
import os
import pwd
import stat


def fault(found: os.stat_result, user: int, alone: bool = False, placed: bool = False) -> str | None:
    """Why a file or folder is not to be trusted by the user with this number, or None. `alone`: its group has no member but its owner;
    `placed`: nobody but root and the user can have put it where it is.

    A character device is the system's own: what is written to /dev/null is not what is read from it.
    """
    if stat.S_ISCHR(found.st_mode):
        return None
    if found.st_uid not in (0, user) and not placed:
        return f"it belongs to user {found.st_uid} ({_mode(found)}), who is neither root nor the user that Hermes runs as, {user}: chown it"
    if found.st_mode & (stat.S_IWOTH if alone else stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it ({_mode(found)}): chmod go-w"
    return None


def replaceable(folder: os.stat_result) -> bool:
    """May anybody put another file in the place of one in this folder? The sticky bit keeps that for the owners, as in /tmp."""
    return bool(folder.st_mode & stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX


def fault_of(path: str, descriptor: int | None = None) -> str | None:
    """The same for what stands at a path, or is already open from there, and for the folder that holds it.

    Of a symbolic link what it points to counts, and where that stands: Kubernetes gives a link in a folder that looks open to all, and is mounted
    read-only.
    """
    try:
        folder = os.path.dirname(os.path.realpath(path))
        found, holder = os.stat(path if descriptor is None else descriptor), os.stat(folder)
    except OSError as error:
        return f"cannot see who may write to it: {error.strerror}"
    user = os.geteuid()
    placed = stat.S_ISREG(found.st_mode) and fault(holder, user, _alone(holder)) is None
    if reason := fault(found, user, _alone(found), placed):
        return reason
    return f"everybody may replace it, in {folder} ({_mode(holder)}): chmod o-w" if replaceable(holder) else None


def _alone(found: os.stat_result) -> bool:
    """Is the group a user's own, made for him and with nobody else in it?"""
    try:
        owner, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return set(group.gr_mem) <= {owner} and all(user.pw_name == owner for user in pwd.getpwall() if user.pw_gid == found.st_gid)


def _mode(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):04o}"
