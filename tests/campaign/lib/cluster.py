"""A demo cluster as a campaign sees it: started, killed, asked over REST and `ctl`.

Only the standard library. The binary is $POSTRIDER_BIN; `./dev campaign` sets it.
"""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse

PASSWORD = "campaign password"
START_SECONDS = 300
STOP_SECONDS = 120


class Failure(Exception):
    """What the campaign is there to find."""


class Lost(Failure):
    """Acknowledged mail is missing or damaged, and nothing else is wrong before that."""


def binary():
    return os.environ.get("POSTRIDER_BIN") or "target/release/postrider"


class Cluster:
    def __init__(self, directory, block=0, shards=6, prefix=(), program=None):
        self.directory, self.block, self.shards = directory, block, shards
        # Another binary than $POSTRIDER_BIN; the demo starts its processes from the same path.
        self.program = program or binary()
        self.ready_file = os.path.join(directory, "ready.json")
        self.data = os.path.join(directory, "data")
        self.prefix, self.options = list(prefix), []
        self.process = self.ready = None

    # --- life ---

    def start(self):
        os.makedirs(self.directory, exist_ok=True)
        log = open(os.path.join(self.directory, "demo.log"), "ab")
        # One that is left names processes that are gone.
        if os.path.exists(self.ready_file):
            os.unlink(self.ready_file)
        self.process = subprocess.Popen(
            [*self.prefix, self.program, "demo", "--data-dir", self.data, "--ready-file", self.ready_file,
             "--shards", str(self.shards), "--no-sample", "--loopback-block", str(self.block), *self.options],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(self.ready_file):
            if self.process.poll() is not None:
                with open(log.name, encoding="utf-8", errors="replace") as said:
                    last = said.read()[-1000:]
                raise Failure(f"the demo ended with {self.process.returncode}: {last}")
            if time.monotonic() > deadline:
                raise Failure(f"the demo is not ready after {START_SECONDS} s: see {log.name}")
            time.sleep(0.1)
        with open(self.ready_file) as file:
            self.ready = json.load(file)
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_SECONDS)

    def pids(self):
        for region in self.ready["regions"]:
            yield from (node["pid"] for node in region["nodes"])
            yield region["frontend_pid"]
            yield region["store_pid"]

    def kill_all(self):
        """SIGKILL of every process, the parent first, so that it neither reports nor tidies."""
        for pid in [self.process.pid, *self.pids()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        for pid in self.pids():
            wait_gone(pid)

    def restart(self, kind, which):
        """Starts a killed process again: a node by its id, a frontend or a store by its region's name."""
        done = subprocess.run([self.program, "demo", "restart", "--data-dir", self.data, kind, str(which)], check=True,
                              stdout=subprocess.PIPE, text=True)
        pid = int(done.stdout.split()[-1])
        for region in self.ready["regions"]:
            if kind == "node":
                for node in region["nodes"]:
                    if node["id"] == which:
                        node["pid"] = pid
            elif region["name"] == which:
                region[f"{kind}_pid"] = pid

    # --- asking ---

    def region(self, index):
        return self.ready["regions"][index % len(self.ready["regions"])]

    def regions_of(self, zone):
        """The places of a zone's regions."""
        return [index for index, region in enumerate(self.ready["regions"]) if region["zone"] == zone]

    def ctl(self, *words, check=True):
        address = ",".join(node["grpc"] for region in self.ready["regions"] for node in region["nodes"])
        done = subprocess.run([self.program, "ctl", "--cluster", address, "--identity", os.path.join(self.data, "ctl"), "--json", *map(str, words)],
                              capture_output=True, text=True)
        if check and done.returncode:
            raise Failure(f"ctl {words}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def until_whole(self, seconds=240):
        """Every shard has a primary and all its replicas, caught up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                status = self.ctl("status", check=False)
                if not any(status[f"shards_{lack}"] for lack in ("without_primary", "missing_replicas", "behind")):
                    return
            except ValueError:
                status = "no node answers"
            if time.monotonic() > deadline:
                raise Failure(f"the cluster does not become whole within {seconds} s: {status}")
            time.sleep(0.2)

    def rest(self, region=0):
        return Rest(urllib.parse.urlsplit(self.region(region)["rest"]).netloc)

    def sign_up(self, names, domain=None):
        """Accounts with these local parts, in turn at each region; those that exist are left as they are."""
        accounts = []
        for index, name in enumerate(names):
            address = f"{name}@{domain or self.ready['domain']}"
            status, body = self.rest(index).call("POST", "/v1/accounts", {"address": address, "password": PASSWORD, "name": name})
            if status not in (201, 409):
                raise Failure(f"sign-up of {address}: {status} {body}")
            accounts.append(address)
        return accounts


def wait_gone(pid):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    raise Failure(f"process {pid} does not end")


class Rest:
    """One client of one region. A busy or leaderless shard (503) is asked again, as clients do."""

    def __init__(self, netloc):
        self.netloc, self.token, self.connection = netloc, None, None

    def call(self, method, path, body=None, patience=120):
        deadline = time.monotonic() + patience
        while True:
            try:
                status, headers, data = self.once(method, path, body)
                if status != 503 or time.monotonic() > deadline:
                    break
            except (OSError, http.client.HTTPException):
                self.connection = None
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)
        kind = headers.get("content-type", "")
        return status, json.loads(data) if "json" in kind and data else data

    def once(self, method, path, body=None, key=None):
        """`key` makes a request the same one when it is sent again."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.netloc, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        if body is not None:
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def log_in(self, address, password=PASSWORD):
        for _ in range(100):
            status, body = self.call("POST", "/v1/sessions", {"address": address, "password": password})
            if status != 429:
                break
            time.sleep(1)
        if status not in (200, 201):
            raise Failure(f"log-in of {address}: {status} {body}")
        self.token = body["token"]
        return self

    def folders(self):
        return self.call("GET", "/v1/folders")[1]

    def inbox(self):
        return next(folder for folder in self.folders() if folder["role"].lower() == "inbox")

    def messages(self, folder_id):
        """Every row of the folder, newest first."""
        cursor = ""
        while True:
            status, page = self.call("GET", f"/v1/folders/{folder_id}/messages?limit=200{cursor}")
            if status != 200:
                raise Failure(f"list: {status} {page}")
            yield from page["messages"]
            if not page.get("next_cursor"):
                return
            cursor = "&cursor=" + urllib.parse.quote(page["next_cursor"])

    def raw(self, message_id, patience=120):
        status, data = self.call("GET", f"/v1/messages/{message_id}/raw", patience=patience)
        if status != 200:
            raise Failure(f"raw of {message_id}: {status} {data}")
        return data


class Smtp:
    """One connection. `send` answers (code, text); whatever breaks the connection raises OSError."""

    def __init__(self, address, timeout=60):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.expect(220)
        self.command("EHLO campaign.example", 250)

    def reply(self):
        lines = []
        while True:
            line = self.input.readline()
            if not line.endswith(b"\r\n"):
                raise ConnectionError("the server hung up")
            lines.append(line[4:].decode("utf-8", "replace").rstrip())
            if line[3:4] != b"-":
                return int(line[:3]), " / ".join(lines)

    def expect(self, code):
        got, text = self.reply()
        if got != code:
            raise ConnectionError(f"{got} {text}")

    def command(self, line, code):
        self.socket.sendall(line.encode() + b"\r\n")
        self.expect(code)

    def send(self, sender, recipients, content):
        """`content` has CRLF lines. The final reply, or the first that refuses."""
        envelope = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{to}>" for to in recipients), "DATA"]
        self.socket.sendall("".join(line + "\r\n" for line in envelope).encode())
        refused = None
        for _ in envelope[:-1]:
            code, text = self.reply()
            if code // 100 != 2:
                refused = refused or (code, text)
        code, text = self.reply()
        if code != 354:
            if refused is None:
                refused = (code, text)
            self.command("RSET", 250)
            return refused
        self.socket.sendall(stuffed(content))
        return self.reply()

    def close(self):
        self.socket.close()


def stuffed(content):
    if content.startswith(b"."):
        content = b"." + content
    content = content.replace(b"\r\n.", b"\r\n..")
    return content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")


def as_sent(raw):
    """A file's bytes as an SMTP client sends them: what ends a line in a file, LF, is CRLF, and so is the end. A bare CR is
    none of that: it stays, and DESIGN 9 demands that the server refuses it."""
    content = re.sub(rb"(?<!\r)\n", b"\r\n", raw)
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def below_trace(raw):
    """Without the trace fields that the server put on top: Return-Path and the first Received."""
    for name in (b"return-path:", b"received:"):
        if not raw[: len(name)].lower() == name:
            raise Failure(f"no {name.decode()} on top: {raw[:80]!r}")
        end = raw.index(b"\r\n") + 2
        while raw[end : end + 1] in (b" ", b"\t"):
            end = raw.index(b"\r\n", end) + 2
        raw = raw[end:]
    return raw


def attachment_mail(subject, sender, recipient, content):
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return (f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
            "Content-Type: multipart/mixed; boundary=edge\r\n\r\n--edge\r\n\r\nSee the attachment.\r\n--edge\r\n"
            "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
            "Content-Disposition: attachment; filename=data.bin\r\n\r\n").encode() + encoded + b"--edge--\r\n"
