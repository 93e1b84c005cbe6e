"""Nothing of the host is touched: a whole demonstration, and a mesh that dies, leave no mark on it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from mesh_lab import Lab, nsm

pytestmark = pytest.mark.root

COUNTERS = ("count", "random", "inode", "entropy", "route/flush")
"""Parts of names of settings that the kernel changes by itself, or that cannot be read."""


def said(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def links():
    """Return what is set on each interface, by name: kind, flags, MTU, alias, addresses; no counters."""
    kept = ("ifname", "ifindex", "flags", "mtu", "qdisc", "ifalias", "address", "linkinfo")
    found = json.loads(said("ip", "-j", "-d", "address"))
    return {
        link["ifname"]: {name: link.get(name) for name in kept}
        | {"addresses": sorted(f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"])}
        for link in found
    }


def routes(family):
    """Return the routes of all tables, without the time that those of a router have left."""
    text = said("ip", family, "route", "show", "table", "all")
    return sorted(re.sub(r" expires \d+sec", "", line) for line in text.splitlines())


def settings():
    """Return every readable setting of the host's network stack, by its path."""
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        name = str(path.relative_to("/proc/sys"))
        if path.is_file() and not any(part in name for part in COUNTERS):
            try:
                found[name] = path.read_text()
            except OSError:
                continue  # written only
    return found


def files():
    """Return what resolvers and names are read from."""
    named = [Path("/etc", name) for name in ("resolv.conf", "hosts", "nsswitch.conf", "nftables.conf")]
    named += sorted(Path("/etc/netns").rglob("*")) if Path("/etc/netns").exists() else []
    return {str(path): path.read_bytes() if path.is_file() else None for path in named}


def host():
    """Return what a user would miss if it were not as before; not neighbours, which age by themselves."""
    return {
        "links": links(),
        "routes": [routes(family) for family in ("-4", "-6")],
        "rules": [said("ip", family, "rule") for family in ("-4", "-6")],
        "tables": said("nft", "list", "ruleset"),
        "settings": settings(),
        "files": files(),
    }


def differences(before, after):
    """Return what is not as it was. Settings of a module that was loaded meanwhile are new, not changed."""
    left = {name: value for name, value in after["settings"].items() if name in before["settings"]}
    after = after | {"settings": left}
    return {
        kind: (
            [name for name in value if value[name] != after[kind].get(name)]
            + [name for name in after[kind] if name not in value]
            if isinstance(value, dict)
            else after[kind]
        )
        for kind, value in before.items()
        if value != after[kind]
    }


@pytest.mark.parametrize("words", [["demo"], ["demo", "--separate"]], ids=" ".join)
def test_by_the_demo(words):
    """Links, addresses, routes, rules, settings, firewall tables, resolver files: during it and after it."""
    before = host()
    with Lab() as lab:
        lab.nsm(*words, "--keep").ok()
        assert differences(before, host()) == {}, "while the mesh is up"
        lab.nsm("down", "--purge").ok()
        assert lab.left() == []
    assert differences(before, host()) == {}


def test_by_a_mesh_that_is_killed():
    """The daemon dies in the middle of its work: neither it nor the clean-up afterwards touches the host."""
    before = host()
    with Lab() as lab:
        lab.nsm("demo", "--keep").ok()
        lab.kill_daemon()
        assert differences(before, host()) == {}, "while the pieces lie about"
        lab.nsm("down", "--purge").ok()
    assert differences(before, host()) == {}


def test_by_the_doctor():
    """Trying what the kernel can do happens elsewhere."""
    before = host()
    nsm("doctor")
    assert differences(before, host()) == {}


def test_it_would_be_seen():
    """The comparison finds what it is for: a setting, a route, an interface, a line of a file."""
    before = host()
    for kind, name in (("links", "lo"), ("settings", "net/ipv4/ip_forward"), ("files", "/etc/resolv.conf")):
        after = {**before, kind: {**before[kind], name: "other"}}
        assert differences(before, after) == {kind: [name]}
    assert "routes" in differences(before, {**before, "routes": [[], []]})
    assert differences(before, {**before, "links": {**before["links"], "new": {}}}) == {"links": ["new"]}
