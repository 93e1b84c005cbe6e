# shellcheck shell=bash
# common.sh: shared by the lab scripts. Source it; it changes nothing by itself.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=${NSMESH_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/nsmesh-lab}      # scratch: programs, images, keys, logs, node disks
BIN=$LAB/bin
export PATH=$BIN:$PATH

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
need() { local c; for c; do command -v "$c" >/dev/null || die "missing program: $c (see README.md)"; done; }

# A process is known by its pid *and* its start time, so that a reused pid is never hit.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

start() { # start NAME PROGRAM ARGS... : background process in its own session; log and pid in $RUN
    local name=$1; shift
    mkdir -p "$RUN/log" "$RUN/pid"
    setsid "$@" >"$RUN/log/$name.log" 2>&1 </dev/null &
    echo "$! $(born $!)" >"$RUN/pid/$name"
}

alive() { # alive NAME
    local pid at
    [ -f "$RUN/pid/$1" ] || return 1
    read -r pid at <"$RUN/pid/$1"
    [ "$(born "$pid")" = "$at" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

stop() { # stop NAME [SIGNAL] : ask, wait up to 10 s, then SIGKILL
    local pid at i
    alive "$1" || { rm -f "$RUN/pid/$1"; return 0; }
    read -r pid at <"$RUN/pid/$1"
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for i in $(seq 100); do alive "$1" || break; sleep 0.1; done
    if alive "$1"; then kill -KILL "$pid" 2>/dev/null || true; sleep 0.2; fi
    rm -f "$RUN/pid/$1"
}

wait_for() { # wait_for SECONDS NAME COMMAND... : until COMMAND succeeds; fails early when process NAME is gone
    local end=$((SECONDS + $1)) name=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        if ! alive "$name"; then tail -5 "$RUN/log/$name.log" >&2; die "$name stopped"; fi
        [ $SECONDS -lt $end ] || { tail -5 "$RUN/log/$name.log" >&2; die "$name not ready: $*"; }
        sleep 0.2
    done
}

free_ports() { # free_ports N : N distinct free loopback TCP ports
    python3 - "$1" <<'PY'
import socket, sys
socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in socks))
PY
}

make_ca() { # make_ca DIR : ca.crt, ca.key and the service-account signing key sa.key
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=nsmesh-lab-ca \
        -keyout "$1/ca.key" -out "$1/ca.crt" 2>/dev/null
    openssl ecparam -name prime256v1 -genkey -noout -out "$1/sa.key"
}

make_cert() { # make_cert DIR NAME SUBJECT [SAN] : NAME.crt and NAME.key, for servers and clients
    openssl req -x509 -CA "$1/ca.crt" -CAkey "$1/ca.key" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -days 30 -subj "$3" -addext "subjectAltName=${4:-DNS:localhost}" -addext basicConstraints=critical,CA:FALSE \
        -addext extendedKeyUsage=serverAuth,clientAuth -keyout "$1/$2.key" -out "$1/$2.crt" 2>/dev/null
}

make_kubeconfig() { # make_kubeconfig FILE SERVER PKI NAME : a kubeconfig that carries its keys
    cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "$2", certificate-authority-data: $(base64 -w0 <"$3/ca.crt")}}]
users: [{name: $4, user: {client-certificate-data: $(base64 -w0 <"$3/$4.crt"), client-key-data: $(base64 -w0 <"$3/$4.key")}}]
contexts: [{name: lab, context: {cluster: lab, user: $4}}]
current-context: lab
YAML
    chmod 600 "$1"
}

cgroup_roots() { # one line per cgroup hierarchy: the single one of cgroup v2, or each of v1
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup
    else find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d; fi
}
