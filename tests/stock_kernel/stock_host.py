"""A host that runs the distribution's own kernel, all modules included: a machine of qemu, without KVM.

Its root is this host's, read only, by virtiofs; what it writes goes to its memory. So whatever is installed
here can be run there, far slower: each instruction is interpreted.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from tiny_image import MissingError, cache, having, packed
from tiny_machine import QEMU

MEMORY = 1536
"""MiB of the host."""
PROCESSORS = 2
BOOT = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
"""Modules without which there is no root; all others are loaded when they are needed."""
_DAEMONS = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /modules/$module.ko; done
mkdir -p /host /over /new
mount -t virtiofs -o ro host /host
mount -t tmpfs over /over
mkdir /over/up /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/up,workdir=/over/work root /new
mkdir -p /new/usr/lib/modules
mount --bind /host{folder}/lib/modules /new/usr/lib/modules
for place in dev proc sys; do mount --move /$place /new/$place; done
mkdir -p /new/dev/shm /new/dev/pts
ln -s /proc/self/fd /new/dev/fd
ln -s fd/0 /new/dev/stdin
mount -t tmpfs shm /new/dev/shm
mount -t devpts pts /new/dev/pts
mount -t tmpfs run /new/run
mkdir /new/run/netns
mount -t cgroup2 cgroup /new/sys/fs/cgroup
exec switch_root /new /bin/sh {job}
"""
_JOB = """exec </dev/null >/dev/hvc0 2>&1
export PATH={path} HOME=/root
ip link set lo up
cd {place}
{command}
echo "{mark}"
sync
echo b > /proc/sysrq-trigger
sleep 60
"""
_MARK = "~~ the job has ended"


def lacks():
    """Return why there can be no such host here, or nothing."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    if _daemon() is None:
        return "virtiofsd is not installed"
    for program in ("busybox", "depmod", "modprobe"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return ""


def _daemon():
    return next((path for path in _DAEMONS if Path(path).exists()), None)


def run(folder, command, *, patience=600.0):
    """Boot, run a command in the working directory of this process, and return all that it said.

    ``folder``: where sockets and logs are. Raises MissingError where the kernel cannot be had, and
    AssertionError where the host does not boot, or its command does not end in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job, said = folder / "job.sh", folder / "said"
    path = os.environ["PATH"]
    job.write_text(
        _JOB.format(path=shlex.quote(path), place=shlex.quote(str(Path.cwd())), command=command, mark=_MARK)
    )
    kernel = _image(folder / "files.cpio", job)
    with _sharing(folder) as socket:
        options = f"""
            -M q35 -accel tcg,thread=multi -cpu max -smp {PROCESSORS} -nodefaults -display none -no-reboot
            -m {MEMORY}M -object memory-backend-memfd,id=m0,size={MEMORY}M,share=on -numa node,memdev=m0
            -chardev socket,id=fs0,path={socket} -device vhost-user-fs-pci,chardev=fs0,tag=host
            -serial file:{folder}/kernel.log -chardev file,id=out,path={said}
            -device virtio-serial-pci -device virtconsole,chardev=out
            -kernel {kernel} -initrd {folder}/files.cpio
        """
        line = "console=ttyS0 panic=-1 mitigations=off nokaslr"
        with (folder / "qemu.log").open("wb") as log:
            machine = subprocess.Popen(
                [QEMU, *options.split(), "-append", line], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.wait(patience)
        finally:
            machine.kill()
            machine.wait()
    text = said.read_text(errors="replace").replace("\r", "") if said.exists() else ""
    ended = re.search(rf"^{_MARK}$", text, re.MULTILINE)
    if ended is None:
        log = (folder / "kernel.log").read_text(errors="replace")[-2000:]
        raise AssertionError(f"the host's job did not end:\n{text[-3000:]}\n{log}")
    return text[: ended.start()]


def _image(files, job):
    """Make the file system that the host boots with; return its kernel."""
    folder = cache()
    with having(folder) as kernel:
        (release,) = (path.name for path in folder.glob("lib/modules/*"))
        if not (folder / "lib/modules" / release / "modules.dep").exists():
            subprocess.run(["depmod", "-b", folder, release], check=True)
        init = _INIT.replace("{folder}", str(folder)).replace("{job}", str(job))
        files.write_bytes(packed(folder, BOOT, init))
    return kernel


@contextlib.contextmanager
def _sharing(folder):
    """Yield the socket of a daemon that shares this host's root, read only at the other end."""
    socket = folder / "root.sock"
    daemon = _daemon()
    how = ["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"]
    if "libexec" in daemon:
        how = ["--shared-dir=/", "--sandbox=chroot", "--cache=always", "--readonly"]
    with (folder / "virtiofsd.log").open("wb") as log:
        sharing = subprocess.Popen([daemon, f"--socket-path={socket}", *how], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 10
        while not socket.exists():
            assert sharing.poll() is None, (folder / "virtiofsd.log").read_text()
            assert time.monotonic() < end, "virtiofsd does not listen"
            time.sleep(0.02)
        yield socket
    finally:
        sharing.kill()
        sharing.wait()


__all__ = ["MissingError", "lacks", "run"]
