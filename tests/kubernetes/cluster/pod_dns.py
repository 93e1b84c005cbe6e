"""A DNS server of a few names, as a program that a pod's Python runs: pod_dns.py ADDRESS NAME=IP...

It answers over UDP, logs each name that it is asked for, and knows nothing but addresses of IPv4.
"""

import socket
import sys


def question_of(query):
    """Return the name of a query, and where its question ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 5


def reply(query, names):
    """Return the answer, and the name that was asked for."""
    name, end = question_of(query)
    known, is_a = name in names, query[end - 4 : end - 2] == b"\0\1"
    found = socket.inet_aton(names[name]) if known and is_a else b""
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + found if found else b""
    counts = bytes([0, 1, 0, 1 if found else 0, 0, 0, 0, 0])
    return query[:2] + (b"\x81\x80" if known else b"\x81\x83") + counts + query[12:end] + record, name


def main():
    """Answer for ever."""
    address, *known = sys.argv[1:]
    names = dict(one.split("=") for one in known)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, sender = server.recvfrom(4096)
        said, name = reply(query, names)
        sys.stdout.write(f"asked {name}\n")
        sys.stdout.flush()
        server.sendto(said, sender)


if __name__ == "__main__":
    main()
