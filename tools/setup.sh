#!/bin/sh
# Installs what a target of the Makefile needs and what is missing: distribution packages and a virtual environment.
# usage: tools/setup.sh run|dev
set -eu
what=${1:-run}
cd "$(dirname "$0")/.."
venv=.venv

say() { printf '%s\n' "$*" >&2; }

# program:package, for what is called at run time; the tests and benchmarks need a little more
wanted="ip:iproute2 nft:nftables ping:iputils-ping wireguard-go:wireguard-go"
[ "$what" = dev ] && wanted="$wanted iperf3:iperf3 tc:iproute2 git:git curl:curl sysctl:procps tcpdump:tcpdump dpdk-testpmd:dpdk-dev \
    qemu-system-x86_64:qemu-system-x86 wg:wireguard-tools busybox:busybox-static ethtool:ethtool faketime:faketime \
    ovs-vswitchd:openvswitch-switch /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk:openvswitch-switch-dpdk"

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
# the engine of policies in Rego is built against it
if [ "$what" = dev ] && [ -z "$(find /lib/ /usr/lib*/ -maxdepth 2 -name 'libatomic.so.1*' 2>/dev/null | head -n 1)" ]; then
    missing="$missing libatomic1"
fi

# The distribution's own interpreter comes first: it belongs to root, as whoever runs it may, and it is built with
# profile-guided optimisation (a Request takes 0.82 of the processor time that a plain build takes).
recent() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
complete() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

python=""
distribution="/usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3"
for candidate in ${PYTHON:-$distribution python3.13 python3.12 python3.11 python3}; do
    recent "$candidate" || continue
    python=${python:-$candidate}
    # what lacks a package is of use only to root, who can install it
    if complete "$candidate" || [ "$(id -u)" = 0 ]; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "error: no Python of 3.11 or later is ${PYTHON:-here}"
    say "  -> install one (Debian 12 and Ubuntu 24.04 have it as python3), or name it: make PYTHON=/path/to/python3.12"
    exit 1
fi
complete "$python" ||
    missing="$missing $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        say "error: these packages are missing:$missing"
        say "  -> install them (apt-get install$missing), or run make as root"
        exit 1
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        say "error: these packages are missing, and this is no Debian or Ubuntu:$missing"
        exit 1
    fi
    say "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # only programs are wanted: no service shall start, now or when this machine does
    veto=/usr/sbin/policy-rc.d
    if [ ! -e "$veto" ]; then
        trap 'rm -f "$veto"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$veto"
        chmod 755 "$veto"
    fi
    # shellcheck disable=SC2086 - a list of words
    apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 ||
        { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $missing >/dev/null; }
    case " $missing " in *" openvswitch-switch "*)
        systemctl disable -q openvswitch-switch ovs-vswitchd ovsdb-server ovs-record-hostname dpdk \
            >/dev/null 2>&1 || true ;;
    esac
fi

# An environment is of one interpreter: another one makes it anew.
interpreter=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable), sys.version.split()[0])')
if [ "$(cat "$venv/.interpreter" 2>/dev/null)" != "$interpreter" ] || [ ! -x "$venv/bin/python" ]; then
    say "making the virtual environment $venv with $interpreter"
    "$python" -m venv --clear "$venv"
    printf '%s\n' "$interpreter" >"$venv/.interpreter"
fi

stamp="$venv/.$what-$(cksum <pyproject.toml | tr ' ' -)"
if [ ! -e "$stamp" ]; then
    say "installing what nsmesh needs into $venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -U "pip>=25.1"
    if [ "$what" = dev ]; then
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e . --group dev
    else
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e .
    fi
    : >"$stamp"
fi
