"""A cluster whose processes are replaced one after the other by those of another build, under load."""

import http.client
import os
import shutil
import signal
import time
import urllib.parse

from cluster import Failure, wait_gone

READY_SECONDS = 120


def put(cluster, build):
    """What is started from here on is of this build."""
    os.makedirs(os.path.dirname(cluster.program), exist_ok=True)
    shutil.copy2(build, cluster.program + ".new")
    # Running processes keep the file that they were started from.
    os.replace(cluster.program + ".new", cluster.program)


def roll(cluster, build, regions=(0, 1, 2)):
    """Every process of these regions in turn; the next node only once the cluster is whole."""
    put(cluster, build)
    for index in regions:
        region = cluster.region(index)
        for node in list(region["nodes"]):
            end(node["pid"])
            cluster.restart("node", node["id"])
            cluster.until_whole()
        end(region["store_pid"])
        cluster.restart("store", region["name"])
        end(region["frontend_pid"])
        cluster.restart("frontend", region["name"])
        until_ready(region)


def end(pid):
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)


def until_ready(region):
    deadline = time.monotonic() + READY_SECONDS
    netloc = urllib.parse.urlsplit(region["rest"]).netloc
    while True:
        try:
            connection = http.client.HTTPConnection(netloc, timeout=10)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise Failure(f"the frontend of {region['name']} is not ready within {READY_SECONDS} s")
        time.sleep(0.1)


def longest_pause(load, begin, end_):
    """The longest time for which an account had nothing acknowledged, both ends counted as one."""
    longest = 0.0
    for account in set(load.accounts):
        times = [begin, *sorted(t for t, owner in load.times if owner == account and begin < t < end_), end_]
        longest = max([longest, *(after - before for before, after in zip(times, times[1:]))])
    return longest
