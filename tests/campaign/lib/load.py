"""Load that remembers what was acknowledged, and the check afterwards that nothing of it is missing or doubled."""

import hashlib
import random
import threading
import time

from cluster import Failure, Lost, Smtp, attachment_mail, below_trace

CONNECTIONS = 64
# Every fifth message has an attachment above the threshold from which attachments go to the object stores.
ATTACHMENT_EVERY = 5
ATTACHMENT_BYTES = 200_000
TEXT_BYTES = 8_000
SENDER = "load@campaign.example"
# How long a message's bytes may take that are there: stores that were just started answer late.
RAW_SECONDS_MAX = 30
# Damaged messages after which no more bytes are read: each may take its whole time, and more of them say nothing new.
DAMAGED_MAX = 5


class Load:
    """`CONNECTIONS` clients, each sending one message after the other to its account. A client never sends a transaction
    again that was unanswered or got 451: it counts as unknown, none or one copy."""

    def __init__(self, cluster, accounts, seed, connections=CONNECTIONS, regions=(0, 1, 2)):
        self.cluster, self.accounts, self.regions = cluster, accounts, regions
        self.acknowledged, self.unknown, self.digests, self.refused = {}, {}, {}, {}
        self.times = []  # (monotonic, account)
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(index, random.Random(f"{seed}-{index}")), daemon=True)
                        for index in range(connections)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(180)
            if thread.is_alive():
                raise Failure("a client hangs: something neither answers nor hangs up")

    def wait_for(self, messages, seconds=240):
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < messages:
            if time.monotonic() > deadline:
                raise Failure(f"only {len(self.acknowledged)} of {messages} messages acknowledged in {seconds} s")
            time.sleep(0.05)

    def client(self, index, rng):
        account, connection, number = self.accounts[index % len(self.accounts)], None, 0
        place = index
        while not self.stopping.is_set():
            if connection is None:
                region = self.cluster.region(self.regions[place % len(self.regions)])
                try:
                    connection = Smtp(region["smtp"], timeout=30)
                except OSError:
                    place += 1
                    self.stopping.wait(0.1)
                    continue
            number += 1
            token = f"load-{index}-{number}"
            content = self.compose(token, account, number, rng)
            with self.lock:
                self.unknown[token] = account
                self.digests[token] = hashlib.sha256(content).digest()
            try:
                code, text = connection.send(SENDER, [account], content)
            except OSError:
                connection, place = None, place + 1
                continue
            with self.lock:
                if code == 250:
                    del self.unknown[token]
                    self.acknowledged[token] = account
                    self.times.append((time.monotonic(), account))
                elif code // 100 == 5:
                    del self.unknown[token]
                    self.refused[token] = f"{code} {text}"
            if code != 250:
                connection.close()
                connection, place = None, place + 1

    def compose(self, token, account, number, rng):
        if number % ATTACHMENT_EVERY == 0:
            return attachment_mail(token, SENDER, account, rng.randbytes(ATTACHMENT_BYTES))
        head = f"From: <{SENDER}>\r\nTo: <{account}>\r\nSubject: {token}\r\n\r\n".encode()
        line = rng.randbytes(35).hex().encode() + b"\r\n"
        return head + line * (TEXT_BYTES // len(line))

    # --- afterwards ---

    def check(self, regions=(0, 1, 2)):
        """Acknowledged: exactly once, byte for byte. Unknown: at most once. Order of modseq = order of arrival."""
        if self.refused:
            raise Failure(f"{len(self.refused)} refused for good: {next(iter(self.refused.items()))}")
        missing, doubled, damaged, strange = [], [], [], []
        for position, account in enumerate(sorted(set(self.accounts))):
            rest = self.cluster.rest(regions[position % len(regions)]).log_in(account)
            rows, places = [*rest.messages(rest.inbox()["id"])], {}
            for row in rows:
                places.setdefault(row["subject"], []).append(row["id"])
            if rest.inbox()["total"] != len(rows):
                raise Failure(f"{account}: counted {rest.inbox()['total']}, listed {len(rows)}")
            strange += [token for token in places if token not in self.digests]
            doubled += [token for token, ids in places.items() if len(ids) > 1]
            for token, owner in self.acknowledged.items():
                if owner != account:
                    continue
                if token not in places:
                    missing.append(token)
                elif len(damaged) < DAMAGED_MAX and not self.is_whole(rest, places[token][0], token):
                    damaged.append(token)
            self.check_order(rest, account, rows)
        found = {"missing": missing, "doubled": doubled, "damaged": damaged, "strange": strange}
        if any(found.values()):
            told = ", ".join(f"{len(tokens)} {what} {tokens[:3]}" for what, tokens in found.items() if tokens)
            raise (Lost if missing or damaged else Failure)(f"{told} of {len(self.acknowledged)} acknowledged")
        return f"{len(self.acknowledged)} acknowledged, 0 missing, 0 twice; {len(self.unknown)} unknown"

    def is_whole(self, rest, message_id, token):
        """A message whose bytes cannot be read, or without its trace fields, is damaged like one with others."""
        try:
            raw = below_trace(rest.raw(message_id, RAW_SECONDS_MAX))
        except (Failure, ValueError):
            return False
        return hashlib.sha256(raw).digest() == self.digests[token]

    @staticmethod
    def check_order(rest, account, rows):
        since, order, last = 0, [], 0
        while True:
            status, page = rest.call("GET", f"/v1/events/poll?since={since}&timeout_s=0")
            if status != 200:
                raise Failure(f"changes of {account}: {status} {page}")
            if not page["changes"]:
                break
            for change in page["changes"]:
                if change["modseq"] <= last:
                    raise Failure(f"{account}: modseq goes from {last} to {change['modseq']}")
                last = change["modseq"]
                if change["type"] == "message_created":
                    order.append(change["message_id"])
            since = page["modseq"]
        if order != [row["id"] for row in reversed(rows)]:
            raise Failure(f"{account}: the order of changes is not the order of arrival")


def equal_digests(cluster):
    for shard in cluster.ctl("shards"):
        digest = cluster.ctl("digest", shard["shard"])
        if len(set(digest["digests"].values())) != 1 or len(digest["digests"]) != len(shard["replicas"]):
            raise Failure(f"digests differ: {digest}")


def clean(cluster):
    differences = cluster.ctl("verify")["differences"]
    if differences:
        raise Failure(f"verify: {differences[:5]}")
    equal_digests(cluster)
