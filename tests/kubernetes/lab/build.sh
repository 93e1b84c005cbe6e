#!/usr/bin/env bash
# build.sh [NAME...] : builds the programs that go.mod pins into $NSMESH_LAB/bin.
#   api     = etcd kube-apiserver kubectl                       (enough for tests of the API server; the default)
#   cluster = api + controller manager, scheduler, kubelet, kube-proxy, pause
#   or any of these names, and helm
# A program that is already built from the same go.mod with the same Go is left alone.
# NSMESH_GCFLAGS=-l builds without inlining: a quarter less time for a first build, slower programs.
. "$(dirname "$0")/common.sh"
need go
[ $# -gt 0 ] || set -- api
names=()
for n; do case $n in
    api) names+=(etcd kube-apiserver kubectl) ;;
    cluster) names+=(etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy pause) ;;
    *) names+=("$n") ;;
esac; done
package() {
    case $1 in
        etcd) echo go.etcd.io/etcd/server/v3 ;;
        helm) echo helm.sh/helm/v4/cmd/helm ;;
        pause) echo ./pause ;;
        *) echo "k8s.io/kubernetes/cmd/$1" ;;
    esac
}

cd "$HERE"
mkdir -p "$BIN"
exec 9>"$BIN/.lock"; flock 9        # whoever comes while it is being built waits, and then finds it built
stamp=$(cat go.mod go.sum pause/main.go <(go version; echo "${NSMESH_GCFLAGS:-}") | sha256sum | cut -c1-16)
old=(); packages=()
for n in "${names[@]}"; do
    if [ -x "$BIN/$n" ] && [ "$(cat "$BIN/.$n.stamp" 2>/dev/null)" = "$stamp" ]; then say "$n: up to date"; continue; fi
    old+=("$n"); packages+=("$(package "$n")")
done
[ ${#old[@]} -gt 0 ] || exit 0

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
flags="-s -w"
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $p.gitVersion=$version -X $p.gitMajor=$major -X $p.gitMinor=$minor -X $p.gitTreeState=clean"
done
new=$(mktemp -d "$BIN/.new.XXXXXX"); trap 'rm -rf "$new"' EXIT
CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -mod=readonly" go build \
    ${NSMESH_GCFLAGS:+"-gcflags=all=$NSMESH_GCFLAGS"} -ldflags "$flags" -o "$new/" "${packages[@]}"
[ ! -e "$new/server" ] || mv "$new/server" "$new/etcd"      # named after its folder
for n in "${old[@]}"; do
    mv "$new/$n" "$BIN/$n"; echo "$stamp" >"$BIN/.$n.stamp"
    say "$n: $(($(stat -c %s "$BIN/$n") / 1000000)) MB"
done
say "built in $SECONDS s"
