"""All benchmarks, or those that are named, in one table: python bench/run.py [--short] [NAME ...].

``make bench`` runs them all; ``make bench ARGS="--short request"`` one of them, quickly. None of them passes
or fails by its time. Everything that is made (processes, namespaces, files) goes away at the end, also after
Ctrl-C and SIGTERM. docs/benchmarks.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from common import sweep
from report import Report, save, show

from nsmesh.core import logging

ROOT = (
    *(
        "request",
        "across",
        "thousand",
        "anew",
        "idle",
        "start",
        "roles",
        "floor",
        "packets",
        "remote",
        "firewall",
    ),
    "heal",
    "ovs",
    "memif",
    "vm",
    "srv6",
    "tunnels",
    "pods",
)
"""Those that make namespaces and interfaces."""
ASKED = ("pods",)
"""Those that run only when they are named: they take minutes, and need what ``make test-cluster`` builds."""
MODULES = {
    "request": "whole_request",
    "across": "across_nodes",
    "thousand": "thousand",
    "anew": "dial_anew",
    "idle": "many_idle",
    "domain": "twenty_nodes",
    "start": "first_ping",
    "roles": "role_start",
    "floor": "netlink_floor",
    "rpc": "rpc_echo",
    "find": "registry_find",
    "find-k8s": "registry_kubernetes",
    "webhook": "admission_webhook",
    "pods": "kubernetes_pods",
    "packets": "local_wire",
    "remote": "remote_wire",
    "srv6": "srv6_wires",
    "tunnels": "many_tunnels",
    "firewall": "transparent_firewall",
    "heal": "heal",
    "ovs": "ovs_wires",
    "memif": "memif_wires",
    "vm": "vm_wires",
}


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Measure speeds, side by side.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which: {', '.join(MODULES)} (default: all but {', '.join(ASKED)})",
    )
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; says little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="cProfile of each role (request)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(MODULES))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(MODULES)}")
    return arguments


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # by way of every finally and with


def main() -> None:
    """Run, and print."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)
    profiles = arguments.profile.resolve() if arguments.profile else None  # processes start in /
    logging.configure(role="bench", level="WARN")
    if os.geteuid() == 0 and (left := sweep()):
        print(f"deleted what a killed benchmark had left: {', '.join(left)}", file=sys.stderr)
    report, began = Report(), time.monotonic()
    for name in arguments.names or [one for one in MODULES if one not in ASKED]:
        if name in ROOT and os.geteuid() != 0:
            report.notes.append(f"{name}: not measured, it needs root")
            continue
        print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr, flush=True)
        module = importlib.import_module(MODULES[name])
        report.add(module.run(short=arguments.short, profiles=profiles))
    show(report, f"speeds side by side{' (short form: says little)' if arguments.short else ''}")
    if arguments.json:
        save(report, arguments.json)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
