"""A host of the original's generation, written from its wire protocol alone.

It speaks what hosts of 2.6.0 and 3.11 speak: `CONNECT 5005` on a hybrid-vsock socket, one JSON
object and a newline, raw archive bytes after it where the action has some, one reply, end of
stream. It knows nothing of what our agent can do beyond that, and drives every action.

    python3 original_host.py AGENT_SOCKET [unittest arguments]

Replies may have more fields than the original's, never fewer, and those it has keep their types.
"""

import base64
import gzip
import io
import json
import socket
import sys
import tarfile
import time
import unittest

SOCKET = None
PORT = 5005
CHUNK = 65536
DEADLINE = 60


class GuestError(Exception):
    """The agent answered `{"error": …}`."""

    def __init__(self, reply):
        super().__init__(reply["error"])
        self.reply = reply


def connect():
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(DEADLINE)
    stream.connect(SOCKET)
    stream.sendall(b"CONNECT %d\n" % PORT)
    answer = b""
    while not answer.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionError("the handshake ended early: %r" % answer)
        answer += byte
    if not answer.startswith(b"OK "):
        raise ConnectionError("the handshake was refused: %r" % answer)
    return stream


def exchange(request, body=b""):
    """Sends one request and gives back every byte of the answer."""
    with connect() as stream:
        stream.sendall(json.dumps(request).encode() + b"\n")
        for start in range(0, len(body), CHUNK):
            stream.sendall(body[start : start + CHUNK])
        answer = b""
        while True:
            chunk = stream.recv(CHUNK)
            if not chunk:
                return answer
            answer += chunk


def parse(line):
    reply = json.loads(line)
    if not isinstance(reply, dict):
        raise TypeError("the reply is no object: %r" % reply)
    if "error" in reply:
        raise GuestError(reply)
    return reply


def ask(request, body=b""):
    answer = exchange(request, body)
    if not answer.endswith(b"\n") or answer.count(b"\n") != 1:
        raise ValueError("the reply is not one line: %r" % answer[:200])
    return parse(answer)


def run(command, **fields):
    return ask({"command": command, **fields})


def shell_text(command):
    reply = run(command)
    assert reply["exit_code"] == 0, reply
    return reply["stdout"]


def upload(action, archive, **fields):
    return ask({"action": action, "archive_size": len(archive), **fields}, archive)


def export(path=None):
    request = {"action": "export_archive"}
    if path is not None:
        request["path"] = path
    answer = exchange(request)
    line, _, body = answer.partition(b"\n")
    header = parse(line)
    if len(body) != header["archive_size"]:
        raise EOFError("%d of %d bytes came" % (len(body), header["archive_size"]))
    return header, body


def tar_of(*members, mode="w"):
    """An archive of (name, content or None, changes to the header)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.mtime = 1_600_000_000
            for field, value in changes.items():
                setattr(info, field, value)
            if content is None:
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def directory(name, mode=0o755):
    return (name, None, {"type": tarfile.DIRTYPE, "mode": mode})


class Conformance(unittest.TestCase):
    def has(self, reply, **fields):
        """Every field is there and is of its type; `None` in a tuple of types allows null."""
        for name, types in fields.items():
            self.assertIn(name, reply)
            value = reply[name]
            types = types if isinstance(types, tuple) else (types,)
            if value is None:
                self.assertIn(None, types, "%s is null in %r" % (name, reply))
                continue
            allowed = tuple(one for one in types if one is not None)
            self.assertIsInstance(value, allowed, "%s in %r" % (name, reply))
            if bool not in allowed:
                self.assertNotIsInstance(value, bool, "%s in %r" % (name, reply))

    def refused(self, call, *arguments, **fields):
        with self.assertRaises(GuestError) as caught:
            call(*arguments, **fields)
        reply = caught.exception.reply
        self.has(reply, error=str, code=str)
        self.assertTrue(reply["error"])
        return reply


class Exec(Conformance):
    def test_without_an_action(self):
        reply = run("echo out; echo err >&2; exit 3")
        self.has(reply, stdout=str, stderr=str, exit_code=int, duration_ms=int)
        self.assertEqual(
            (reply["stdout"], reply["stderr"], reply["exit_code"]), ("out\n", "err\n", 3)
        )

    def test_with_its_name(self):
        reply = ask({"action": "exec", "command": "echo named", "timeout_seconds": 20})
        self.assertEqual(reply["stdout"], "named\n")

    def test_no_command_is_an_empty_one(self):
        reply = ask({})
        self.assertEqual((reply["stdout"], reply["exit_code"]), ("", 0))

    def test_a_signal_is_a_negative_code(self):
        self.assertEqual(run("kill -9 $$")["exit_code"], -9)

    def test_the_limit_is_124_and_named(self):
        reply = run("echo before; sleep 100", timeout_seconds=4)
        self.assertEqual(reply["exit_code"], 124)
        self.assertIn("4", reply["stderr"])
        # The original loses it; a host of its generation does not mind having it.
        self.assertEqual(reply["stdout"], "before\n")

    def test_environment(self):
        reply = run("echo $GREETING", env={"GREETING": "hello there"})
        self.assertEqual(reply["stdout"], "hello there\n")
        self.assertEqual(run("echo fine", env=None)["stdout"], "fine\n")
        for name in ("1A", "A-B", "", "A" * 65, "A=B"):
            self.refused(run, "true", env={name: "x"})

    def test_output_that_is_no_text_is_no_error(self):
        self.assertEqual(run(r"printf '\377x'")["exit_code"], 0)

    def test_what_runs_in_the_background_holds_nothing_up(self):
        start = time.monotonic()
        self.assertEqual(run("sleep 200 & echo done")["stdout"], "done\n")
        self.assertLess(time.monotonic() - start, 100)


class Requests(Conformance):
    def test_an_unknown_action_is_an_error_and_never_a_command(self):
        reply = self.refused(ask, {"action": "no_such", "command": "touch /tmp/never"})
        self.assertIn("no_such", reply["error"])
        self.assertNotEqual(run("test -e /tmp/never")["exit_code"], 0)

    def test_what_is_no_object_is_an_error(self):
        for line in (b"[]\n", b'"text"\n', b"{\n", b"\xff\n"):
            with connect() as stream:
                stream.sendall(line)
                answer = stream.makefile("rb").read()
            self.assertIn("error", json.loads(answer))

    def test_the_end_of_the_stream_ends_a_request_too(self):
        with connect() as stream:
            stream.sendall(b'{"command": "echo ended"}')
            stream.shutdown(socket.SHUT_WR)
            reply = parse(stream.makefile("rb").read())
        self.assertEqual(reply["stdout"], "ended\n")


class Archives(Conformance):
    def test_an_overlay_keeps_what_else_is_there(self):
        run("mkdir -p /workspace/over && echo kept > /workspace/over/other")
        content = b"#!/bin/sh\necho ran\n"
        archive = tar_of(
            directory("bin"),
            ("bin/tool", content, {"mode": 0o755}),
            ("link", None, {"type": tarfile.SYMTYPE, "linkname": "bin/tool"}),
            ("up", None, {"type": tarfile.SYMTYPE, "linkname": "../over/bin"}),
        )
        reply = upload("extract_archive", archive, destination="/workspace/over")
        self.has(reply, destination=str, entry_count=int, bytes_written=int)
        self.assertEqual(reply["destination"], "/workspace/over")
        self.assertEqual((reply["entry_count"], reply["bytes_written"]), (4, len(content)))
        self.assertEqual(shell_text("/workspace/over/link; cat /workspace/over/other"), "ran\nkept\n")
        self.assertEqual(shell_text("ls /workspace/over/up"), "tool\n")

    def test_compressed_and_with_a_root_entry(self):
        for mode in ("w", "w:gz"):
            archive = tar_of(directory("./"), ("./a/b", b"deep", {}), mode=mode)
            reply = upload("extract_archive", archive, destination="squeezed")
            self.assertEqual(reply["destination"], "/workspace/squeezed")
            self.assertEqual(shell_text("cat /workspace/squeezed/a/b"), "deep")
        twice = gzip.compress(archive[:0]) + gzip.compress(tar_of(("c", b"joined", {})))
        upload("extract_archive", twice, destination="squeezed")
        self.assertEqual(shell_text("cat /workspace/squeezed/c"), "joined")

    def test_modes_and_times_are_kept(self):
        archive = tar_of(("f", b"x", {"mode": 0o640, "mtime": 1_234_567_890}))
        upload("extract_archive", archive, destination="kept")
        self.assertEqual(shell_text("stat -c '%a %Y' /workspace/kept/f"), "640 1234567890\n")

    def test_nothing_leads_outside(self):
        run("mkdir -p /elsewhere && echo safe > /elsewhere/file")
        hostile = [
            [("../outside", b"x", {})],
            [("/elsewhere/absolute", b"x", {})],
            [("a/../../outside", b"x", {})],
            [
                ("way", None, {"type": tarfile.SYMTYPE, "linkname": "/elsewhere"}),
                ("way/file", b"overwritten", {}),
            ],
            [
                ("hard", None, {"type": tarfile.LNKTYPE, "linkname": "../elsewhere/file"}),
            ],
            [("pipe", None, {"type": tarfile.FIFOTYPE})],
            [("device", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
        ]
        for number, members in enumerate(hostile):
            with self.subTest(members=members):
                place = "/workspace/hostile%d" % number
                run("mkdir -p %s && echo before > %s/mine" % (place, place))
                try:
                    upload("extract_archive", tar_of(*members), destination=place)
                except GuestError:
                    self.assertEqual(shell_text("cd %s; ls; cat mine" % place), "mine\nbefore\n")
                self.assertEqual(shell_text("ls /elsewhere; cat /elsewhere/file"), "file\nsafe\n")
                self.assertNotEqual(run("test -e /workspace/outside -o -e /outside")["exit_code"], 0)

    def test_destinations(self):
        archive = tar_of(("f", b"x", {}))
        for wrong in ("/", "/etc", "", "  ", "/workspace/../etc", "../etc"):
            self.refused(upload, "extract_archive", archive, destination=wrong)
        self.refused(ask, {"action": "extract_archive", "archive_size": -1})

    def test_a_damaged_archive_changes_nothing(self):
        run("mkdir -p /workspace/damaged && echo before > /workspace/damaged/f")
        whole = tar_of(("f", b"y" * 100_000, {}), ("g", b"z" * 100_000, {}))
        for cut in (100, 600, 150_000):
            self.refused(upload, "extract_archive", whole[:cut], destination="damaged")
            self.assertEqual(shell_text("cd /workspace/damaged; ls; cat f"), "f\nbefore\n")

    def test_an_upload_that_is_cut_off_changes_nothing(self):
        run("mkdir -p /workspace/cut && echo before > /workspace/cut/f")
        whole = tar_of(("f", b"y" * 400_000, {}))
        with connect() as stream:
            request = {"action": "extract_archive", "archive_size": len(whole), "destination": "cut"}
            stream.sendall(json.dumps(request).encode() + b"\n" + whole[:200_000])
        self.assertEqual(shell_text("cd /workspace/cut; ls; cat f"), "f\nbefore\n")

    def test_export_of_a_directory(self):
        run(
            "mkdir -p /workspace/out/sub/empty && cd /workspace/out && echo one > a && echo two > sub/b"
            " && ln -s ../nowhere sub/l && chmod 750 a"
        )
        header, body = export("/workspace/out")
        self.has(
            header, workspace_path=str, artifact_type=str, archive_size=int, entry_count=int, bytes_written=int
        )
        self.assertEqual((header["workspace_path"], header["artifact_type"]), ("/workspace/out", "directory"))
        self.assertEqual((header["entry_count"], header["bytes_written"]), (5, 8))
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            members = {member.name: member for member in archive}
            self.assertEqual(set(members), {"a", "sub", "sub/b", "sub/empty", "sub/l"})
            self.assertEqual(archive.extractfile("sub/b").read(), b"two\n")
        self.assertEqual(members["a"].mode & 0o7777, 0o750)
        self.assertTrue(members["sub/l"].issym())
        self.assertEqual(members["sub/l"].linkname, "../nowhere")

    def test_export_of_a_file_and_of_a_link(self):
        run("echo alone > /workspace/single && ln -sf single /workspace/pointer")
        for path, kind in (("/workspace/single", "file"), ("/workspace/pointer", "symlink")):
            header, body = export(path)
            self.assertEqual((header["artifact_type"], header["entry_count"]), (kind, 1))
            with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
                self.assertEqual(archive.getnames(), [path.rsplit("/", 1)[1]])

    def test_export_without_a_path_is_the_workspace(self):
        run("echo here > /workspace/whole")
        header, body = export()
        self.assertEqual((header["workspace_path"], header["artifact_type"]), ("/workspace", "directory"))
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            self.assertIn("whole", archive.getnames())

    def test_export_refusals(self):
        run("mkfifo -m 600 /workspace/fifo")
        for path in ("/workspace/missing", "/workspace/fifo", "/etc", ""):
            self.refused(export, path)
        run("rm /workspace/fifo")

    def test_what_goes_in_comes_out(self):
        members = [("deep/%s/%d" % ("n" * 60, number), b"%d" % number * 1000, {}) for number in range(200)]
        members.append(("deep/\u00e9t\u00e9 with spaces", b"accent", {}))
        upload("extract_archive", tar_of(*members), destination="round")
        _, body = export("/workspace/round")
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:") as archive:
            found = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
        self.assertEqual(found, {name: content for name, content, _ in members})


class Secrets(Conformance):
    def test_they_are_replaced_as_a_whole(self):
        reply = upload("install_secrets", tar_of(("OLD", b"o", {}), ("TOKEN", b"first", {})))
        self.has(reply, destination=str, entry_count=int, bytes_written=int)
        self.assertEqual(reply["destination"], "/run/pyro-secrets")
        self.assertEqual((reply["entry_count"], reply["bytes_written"]), (2, 6))
        upload("install_secrets", tar_of(("TOKEN", b"second", {"mode": 0o777}), ("sub/KEY", b"k", {})))
        self.assertEqual(shell_text("cd /run/pyro-secrets; ls; cat TOKEN sub/KEY"), "TOKEN\nsub\nsecondk")
        modes = shell_text("cd /run/pyro-secrets; stat -c %a . TOKEN sub sub/KEY")
        self.assertEqual(modes, "700\n600\n700\n600\n")

    def test_links_and_names_outside_are_refused_and_keep_the_old(self):
        upload("install_secrets", tar_of(("STAYS", b"s", {})))
        for member in (
            ("LINK", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
            ("HARD", None, {"type": tarfile.LNKTYPE, "linkname": "STAYS"}),
            ("../OUT", b"x", {}),
            ("/ABSOLUTE", b"x", {}),
        ):
            self.refused(upload, "install_secrets", tar_of(("NEW", b"n", {}), member))
        self.assertEqual(shell_text("ls /run/pyro-secrets"), "STAYS\n")


class Files(Conformance):
    def test_listing(self):
        run("mkdir -p /workspace/list/b && cd /workspace/list && printf 12345 > a && touch b/c && ln -s a l")
        flat = ask({"action": "list_workspace", "path": "/workspace/list"})
        self.has(flat, path=str, artifact_type=str, entries=list)
        for entry in flat["entries"]:
            self.has(entry, path=str, artifact_type=str, size_bytes=int, link_target=(str, None))
        shown = [(e["path"], e["artifact_type"], e["size_bytes"], e["link_target"]) for e in flat["entries"]]
        self.assertEqual(
            shown,
            [
                ("/workspace/list/a", "file", 5, None),
                ("/workspace/list/b", "directory", 0, None),
                ("/workspace/list/l", "symlink", 1, "a"),
            ],
        )
        deep = ask({"action": "list_workspace", "path": "list", "recursive": True})
        self.assertEqual(
            [entry["path"].removeprefix("/workspace/list/") for entry in deep["entries"]], ["a", "b", "b/c", "l"]
        )
        alone = ask({"action": "list_workspace", "path": "/workspace/list/a"})
        self.assertEqual((alone["artifact_type"], len(alone["entries"])), ("file", 1))
        self.assertEqual(ask({"action": "list_workspace"})["path"], "/workspace")

    def test_reading(self):
        run(r"printf '\000\377text' > /workspace/bytes")
        reply = ask({"action": "read_workspace_file", "path": "/workspace/bytes"})
        self.has(reply, path=str, size_bytes=int, content_b64=str)
        self.assertEqual(base64.b64decode(reply["content_b64"]), b"\x00\xfftext")
        self.assertEqual(reply["size_bytes"], 6)
        run("ln -sf bytes /workspace/to-bytes")
        for request in (
            {"path": "/workspace/bytes", "max_bytes": 5},
            {"path": "/workspace/bytes", "max_bytes": 0},
            {"path": "/workspace/bytes", "max_bytes": 1_048_577},
            {"path": "/workspace/to-bytes"},
            {"path": "/workspace"},
            {"path": "/workspace/missing"},
            {"path": "/etc/passwd"},
        ):
            self.refused(ask, {"action": "read_workspace_file", **request})

    def test_writing(self):
        request = {"action": "write_workspace_file", "path": "/workspace/made/up/f", "text": "h\u00e9llo\n"}
        reply = ask(request)
        self.has(reply, path=str, size_bytes=int, bytes_written=int)
        self.assertEqual((reply["size_bytes"], reply["bytes_written"]), (7, 7))
        run("chmod 751 /workspace/made/up/f")
        ask({**request, "text": "again"})
        self.assertEqual(shell_text("cd /workspace/made/up; cat f; stat -c ' %a' f; ls -A"), "again 751\nf\n")
        self.refused(ask, {**request, "text": "x" * 1_048_577})
        self.refused(ask, {**request, "path": "/workspace/made/up"})
        run("ln -sfn /tmp /workspace/away")
        self.refused(ask, {**request, "path": "/workspace/away/f"})

    def test_the_largest_text(self):
        text = "x" * 1_048_576
        reply = ask({"action": "write_workspace_file", "path": "large", "text": text})
        self.assertEqual(reply["size_bytes"], 1_048_576)
        reply = ask({"action": "read_workspace_file", "path": "large"})
        self.assertEqual(base64.b64decode(reply["content_b64"]), text.encode())

    def test_deleting(self):
        run("echo target > /workspace/target && ln -sf target /workspace/gone && mkdir -p /workspace/stays")
        reply = ask({"action": "delete_workspace_path", "path": "/workspace/gone"})
        self.has(reply, path=str, deleted=bool)
        self.assertTrue(reply["deleted"])
        self.assertEqual(shell_text("ls /workspace/gone 2>&1 | wc -l; cat /workspace/target"), "1\ntarget\n")
        for path in ("/workspace/stays", "/workspace/missing", "/workspace", "/etc/passwd"):
            self.refused(ask, {"action": "delete_workspace_path", "path": path})


class Shells(Conformance):
    SUMMARY = dict(
        shell_id=str,
        cwd=str,
        cols=int,
        rows=int,
        state=str,
        started_at=float,
        ended_at=(float, None),
        exit_code=(int, None),
    )

    def open(self, shell_id, **fields):
        reply = ask({"action": "open_shell", "shell_id": shell_id, **fields})
        self.has(reply, **self.SUMMARY)
        return reply

    def write(self, shell_id, text, **fields):
        return ask({"action": "write_shell", "shell_id": shell_id, "input": text, **fields})

    def read_until(self, shell_id, wanted):
        """Polls as the original's hosts do."""
        output, cursor, deadline = "", 0, time.monotonic() + DEADLINE
        while wanted not in output:
            self.assertLess(time.monotonic(), deadline, "%r is not in %r" % (wanted, output))
            reply = ask({"action": "read_shell", "shell_id": shell_id, "cursor": cursor})
            self.has(reply, cursor=int, next_cursor=int, output=str, truncated=bool, **self.SUMMARY)
            self.assertEqual(reply["cursor"], cursor)
            self.assertGreaterEqual(reply["next_cursor"], cursor)
            output, cursor = output + reply["output"], reply["next_cursor"]
        return output

    def test_a_life(self):
        summary = self.open("life")
        self.assertEqual((summary["cwd"], summary["cols"], summary["rows"]), ("/workspace", 120, 30))
        self.assertEqual((summary["state"], summary["ended_at"], summary["exit_code"]), ("running", None, None))
        reply = self.write("life", "echo sum $((40 + 2)); stty size; echo term $TERM")
        self.has(reply, input_length=int, append_newline=bool, **self.SUMMARY)
        self.assertTrue(reply["append_newline"])
        output = self.read_until("life", "term xterm")
        self.assertIn("sum 42", output)
        self.assertIn("30 120", output)
        self.write("life", "ex", append_newline=False)
        self.write("life", "it 5")
        deadline = time.monotonic() + DEADLINE
        while True:
            summary = ask({"action": "read_shell", "shell_id": "life"})
            if summary["state"] == "stopped":
                break
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(summary["exit_code"], 5)
        self.assertIsInstance(summary["ended_at"], float)
        self.refused(self.write, "life", "too late")
        closed = ask({"action": "close_shell", "shell_id": "life"})
        self.has(closed, closed=bool, **self.SUMMARY)
        self.assertTrue(closed["closed"])
        self.refused(ask, {"action": "read_shell", "shell_id": "life"})

    def test_choices_environment_and_redaction(self):
        run("mkdir -p /workspace/there")
        summary = self.open(
            "choices",
            cwd="/workspace/there",
            cols=77,
            rows=11,
            env={"COLOUR": "blue"},
            redact_values=["hunter2", "hunter2-long"],
        )
        self.assertEqual((summary["cwd"], summary["cols"], summary["rows"]), ("/workspace/there", 77, 11))
        self.write("choices", "pwd; stty size; echo $COLOUR; echo hunter2''-long; echo en''ded")
        output = self.read_until("choices", "ended")
        for part in ("/workspace/there", "11 77", "blue", "[REDACTED]"):
            self.assertIn(part, output)
        self.assertNotIn("hunter2-long\r", output)
        ask({"action": "close_shell", "shell_id": "choices"})

    def test_signals(self):
        self.open("signals")
        # While bash reads a line, a TERM can end it although it is trapped: readline takes the
        # interrupted read for the end of input. So it is busy with a loop instead.
        self.write("signals", "trap 'echo caught' TERM; echo re''ady; while :; do sleep 1; done")
        self.read_until("signals", "ready")
        reply = ask({"action": "signal_shell", "shell_id": "signals", "signal": "term"})
        self.has(reply, signal=str, **self.SUMMARY)
        self.assertEqual(reply["signal"], "TERM")
        self.read_until("signals", "caught")
        self.refused(ask, {"action": "signal_shell", "shell_id": "signals", "signal": "NOPE"})
        reply = ask({"action": "signal_shell", "shell_id": "signals"})
        self.assertEqual(reply["signal"], "INT")
        ask({"action": "close_shell", "shell_id": "signals"})

    def test_refusals(self):
        self.open("twice")
        self.refused(self.open, "twice")
        ask({"action": "close_shell", "shell_id": "twice"})
        self.refused(ask, {"action": "open_shell"})
        self.refused(self.open, "../../escape")
        self.refused(self.open, "lost", cwd="/workspace/nowhere")
        for action in ("read_shell", "write_shell", "signal_shell", "close_shell"):
            self.refused(ask, {"action": action, "shell_id": "unknown"})


class Services(Conformance):
    RECORD = dict(
        service_name=str,
        command=str,
        cwd=str,
        state=str,
        started_at=float,
        readiness=(dict, None),
        ready_at=(float, None),
        ended_at=(float, None),
        exit_code=(int, None),
        pid=(int, None),
        stop_reason=(str, None),
    )

    def start(self, name, command, **fields):
        reply = ask({"action": "start_service", "service_name": name, "command": command, **fields})
        self.has(reply, **self.RECORD)
        return reply

    def status(self, name):
        reply = ask({"action": "status_service", "service_name": name})
        self.has(reply, **self.RECORD)
        return reply

    def logs(self, name, **fields):
        reply = ask({"action": "logs_service", "service_name": name, **fields})
        self.has(reply, stdout=str, stderr=str, tail_lines=(int, None), truncated=bool, **self.RECORD)
        return reply

    def stop(self, name):
        reply = ask({"action": "stop_service", "service_name": name})
        self.has(reply, **self.RECORD)
        return reply

    def test_a_life_with_logs(self):
        started = self.start("life", "echo out; echo err >&2; echo $FLAVOUR; exec sleep 1000", env={"FLAVOUR": "mint"})
        self.assertEqual((started["state"], started["cwd"]), ("running", "/workspace"))
        self.assertIsNone(started["readiness"])
        self.refused(self.start, "life", "true")
        deadline = time.monotonic() + DEADLINE
        while self.logs("life")["stdout"] != "out\nmint\n":
            self.assertLess(time.monotonic(), deadline)
        tail = self.logs("life", tail_lines=1)
        self.assertEqual((tail["stdout"], tail["stderr"], tail["tail_lines"]), ("mint\n", "err\n", 1))
        self.assertTrue(tail["truncated"])
        stopped = self.stop("life")
        self.assertEqual((stopped["state"], stopped["stop_reason"]), ("stopped", "sigterm"))
        self.assertIsInstance(stopped["ended_at"], float)
        again = self.start("life", "exec sleep 1000")
        self.assertEqual((again["state"], self.logs("life")["stdout"]), ("running", ""))
        self.stop("life")

    def test_one_that_will_not_stop(self):
        self.start("stubborn", "trap '' TERM; echo up; while :; do sleep 1; done", readiness=None)
        deadline = time.monotonic() + DEADLINE
        while self.logs("stubborn")["stdout"] != "up\n":
            self.assertLess(time.monotonic(), deadline)
        stopped = self.stop("stubborn")
        self.assertEqual((stopped["state"], stopped["stop_reason"]), ("stopped", "sigkill"))

    def test_one_that_ends_by_itself(self):
        self.start("short", "exit 4")
        deadline = time.monotonic() + DEADLINE
        while self.status("short")["state"] != "exited":
            self.assertLess(time.monotonic(), deadline)
        record = self.status("short")
        self.assertEqual((record["exit_code"], record["stop_reason"]), (4, None))

    def test_one_that_dies_before_it_is_ready(self):
        begin = time.monotonic()
        record = self.start(
            "stillborn", "exit 9", readiness={"type": "file", "path": "/workspace/never"}, ready_timeout_seconds=50
        )
        self.assertEqual((record["state"], record["stop_reason"]), ("failed", "process_exited_before_ready"))
        self.assertLess(time.monotonic() - begin, 40)

    def test_one_that_is_never_ready(self):
        record = self.start(
            "slow",
            "exec sleep 1000",
            readiness={"type": "tcp", "address": "127.0.0.1:9"},
            ready_timeout_seconds=1,
            ready_interval_ms=50,
        )
        self.assertEqual((record["state"], record["stop_reason"]), ("failed", "readiness_timeout"))

    def test_readiness_of_each_kind(self):
        server = (
            "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 9, ReuseAddr => 1,"
            ' LocalAddr => "127.0.0.1", LocalPort => %d) or die; while ($c = $s->accept) {'
            ' $_ = <$c>; print $c "HTTP/1.0 204 No Content\\r\\n\\r\\n"; close $c }\''
        )
        for name, command, readiness in (
            ("file", "sleep 0.3; touch /workspace/is-ready; exec sleep 1000", {"path": "/workspace/is-ready"}),
            ("tcp", server % 7101, {"address": "127.0.0.1:7101"}),
            ("http", server % 7102, {"url": "http://127.0.0.1:7102/health"}),
            ("command", "exec sleep 1000", {"command": "test -d /workspace"}),
        ):
            with self.subTest(kind=name):
                record = self.start(
                    "ready-" + name, command, readiness={"type": name, **readiness}, ready_interval_ms=20
                )
                self.assertEqual(record["state"], "running")
                self.assertIsInstance(record["ready_at"], float)
                self.assertEqual(record["readiness"]["type"], name)
                self.stop("ready-" + name)

    def test_refusals(self):
        for name in ("", "../x", ".hidden", "a" * 65, "white space"):
            self.refused(self.start, name, "true")
        self.refused(self.start, "fine", "true", ready_interval_ms=0)
        self.refused(self.start, "fine", "true", readiness={"type": "prayer"})
        for call in (self.status, self.logs, self.stop):
            self.refused(call, "unknown")


if __name__ == "__main__":
    SOCKET = sys.argv.pop(1)
    unittest.main(verbosity=0)
