"""Questions to a name server, and nothing else of DNS: the address of a name, for whom a client subnet names or for who asks."""

import secrets
import socket
import struct

ANSWER_SECONDS = 5
A, IN, OPT, CLIENT_SUBNET = 1, 1, 41, 8


def question(name, number, subnet=None):
    """RFC 1035 section 4; `subnet` (an IPv4 address, its /24 is meant) as RFC 7871 section 6 has it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    option = b""
    if subnet:
        option = struct.pack("!HHHBB", CLIENT_SUBNET, 7, 1, 24, 0) + socket.inet_aton(subnet)[:3]
    head = struct.pack("!HHHHHH", number, 0, 1, 0, 0, 1)
    return head + labels + b"\0" + struct.pack("!HH", A, IN) + b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(option)) + option


def address(server, name, subnet=None):
    """What a name server (ADDRESS:PORT) says. Asked again once: a datagram may be lost."""
    host, port = server.rsplit(":", 1)
    for attempt in range(2):
        number = secrets.randbelow(1 << 16)
        asked = question(name, number, subnet)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect((host, int(port)))
            sock.send(asked)
            try:
                answer = sock.recv(4096)
            except TimeoutError:
                continue
        got, flags, _, answers, _, _ = struct.unpack("!HHHHHH", answer[:12])
        if got != number or flags & 0xF or not answers:
            raise OSError(f"{server} answers {name} with {flags:#06x} and {answers} records")
        # The question comes back as it was, and the first record names it by a pointer.
        at = answer.index(b"\0", 12) + 5
        kind, _, _, length = struct.unpack("!HHIH", answer[at + 2:at + 12])
        if kind != A or length != 4:
            raise OSError(f"{server} answers {name} with a record of type {kind}")
        return socket.inet_ntoa(answer[at + 12:at + 16])
    raise OSError(f"{server} does not answer")
