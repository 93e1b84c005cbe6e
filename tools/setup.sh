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
[ "$what" = dev ] && wanted="$wanted iperf3:iperf3 tc:iproute2 git:git curl:curl sysctl:procps"

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done

python=""
for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "error: no Python of 3.11 or later is here"
    say "  -> install one (Debian 12 and Ubuntu 24.04 have it as python3), or name it: make PYTHON=/path/to/python3.12"
    exit 1
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
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
    # shellcheck disable=SC2086 - a list of words
    apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 ||
        { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $missing >/dev/null; }
fi

stamp="$venv/.$what-$(cksum <pyproject.toml | tr ' ' -)"
if [ ! -e "$stamp" ]; then
    say "making the virtual environment $venv with $("$python" --version)"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -U "pip>=25.1"
    if [ "$what" = dev ]; then
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e . --group dev
    else
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e .
    fi
    : >"$stamp"
fi
