"""A wide-area network between regions: each is a network namespace of its own, joined by the user-space network $POSTRIDER_WAN
(default ../shared/tools/wan.py). Needs root and iproute2.

The campaign runs once more as a child, at the client's place in that network; its commands reach the network by a pipe.
"""

import os
import subprocess
import sys

WAN = os.environ.get("POSTRIDER_WAN", os.path.join("..", "shared", "tools", "wan.py"))
REGIONS = ["seoul", "frankfurt", "virginia"]
CLIENT = "client"
INSIDE = "POSTRIDER_IN_WAN"


class Network:
    """The network's commands."""

    def __init__(self, to, answers):
        self.to, self.answers = to, answers

    def ask(self, command):
        self.to.write(command + "\n")
        self.to.flush()
        answer = self.answers.readline().strip()
        if answer != "ok":
            raise RuntimeError(f"the network refuses {command}: {answer}")


def within(*commands, rtt_ms, clients=None):
    """The network, for the child that runs in it. The parent makes it, says `commands` to it, and ends with the child's code.
    `clients`: further places by name, each with an address of a network of its own that the regions see it by."""
    if INSIDE in os.environ:
        to, answers = map(int, os.environ[INSIDE].split(","))
        return Network(os.fdopen(to, "w"), os.fdopen(answers))
    places = [*REGIONS, CLIENT, *(clients or {})]
    wan = subprocess.Popen([sys.executable, WAN, *places, "--rtt", str(rtt_ms)], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)
    try:
        if not wan.stdout.readline().startswith("ready"):
            raise SystemExit("the network does not come up")
        for name, address in (clients or {}).items():
            if int(address.rsplit(".", 1)[1]) != places.index(name) + 1:
                raise SystemExit(f"{name} is place {places.index(name) + 1}, and the network goes by the last number of {address}")
            subprocess.run(["ip", "-n", name, "addr", "add", f"{address}/32", "dev", "wan0"], check=True)
            subprocess.run(["ip", "-n", name, "route", "replace", "10.240.0.0/24", "dev", "wan0", "src", address], check=True)
            for region in REGIONS:
                subprocess.run(["ip", "-n", region, "route", "add", f"{address}/32", "dev", "wan0"], check=True)
        network = Network(wan.stdin, wan.stdout)
        for command in commands:
            network.ask(command)
        pipes = wan.stdin.fileno(), wan.stdout.fileno()
        child = subprocess.run(["ip", "netns", "exec", CLIENT, sys.executable, *sys.argv], pass_fds=pipes,
                               env={**os.environ, INSIDE: "{},{}".format(*pipes)})
        sys.exit(child.returncode)
    finally:
        wan.stdin.close()
        wan.wait()
