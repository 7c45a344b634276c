"""The Inspector and MCP's conformance suite against `pyro mcp serve`.

    MCP_NODE=NODE MCP_PACKAGES=NODE_MODULES python3 conformance.py PROGRAM

The suite speaks HTTP alone, so it is led to a server over its standard streams: each message is passed on as it is, and
answers come back as they are. Left out are the scenarios about HTTP itself and those that ask for tools of the suite's own.
"""

import http.server
import json
import os
import queue
import re
import subprocess
import sys
import threading

NODE, PACKAGES = os.environ["MCP_NODE"], os.environ["MCP_PACKAGES"]

ALL = None

# By version of the protocol: the scenarios, and which of their checks are about the messages.
SCENARIOS = {
    "2025-11-25": {
        "server-initialize": ALL,
        "server-session-lifecycle": ALL,
        "ping": ALL,
        "tools-list": ALL,
    },
    "2026-07-28": {
        "tools-list": ALL,
        "server-stateless": [
            "sep-2575-request-meta-invalid-missing-meta",
            "sep-2575-request-meta-invalid-missing-protocol-version",
            "sep-2575-request-meta-invalid-missing-client-capabilities",
            "sep-2575-request-meta-client-info-optional",
            "sep-2575-server-implements-discover",
            "sep-2575-server-identifies-in-result-meta",
            "sep-2575-discover-capabilities-match-handlers",
            "sep-2575-server-unsupported-version-error",
            "sep-2575-http-server-error-jsonrpc-id",
        ],
        "caching": [
            "sep-2549-tools-list-caching-hints",
            "sep-2549-ttl-non-negative",
            "sep-2549-cache-scope-valid",
            "wire-schema-valid",
        ],
    },
}


class Server:
    """A server and those who wait for its answers."""

    def __init__(self, program):
        words = [program, "mcp", "serve", "--no-project-source"]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.waiting, self.lock = {}, threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            message = json.loads(line)
            waiting = self.waiting.pop(json.dumps(message.get("id")), None)
            if waiting:
                waiting.put(message)

    def say(self, message):
        answer = queue.Queue()
        with self.lock:
            if "id" in message:
                self.waiting[json.dumps(message["id"])] = answer
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        return answer.get(timeout=20) if "id" in message else None

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0


def handler(program, sessions):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = json.loads(body)
            session = self.headers.get("Mcp-Session-Id")
            # Without a session each message has a server of its own.
            if session is None:
                session = f"s{len(sessions)}"
                sessions[session] = Server(program)
            answer = sessions[session].say(message)
            told = b"" if answer is None else json.dumps(answer).encode()
            failed = answer is not None and answer.get("error", {}).get("code") in (-32022, -32601)
            self.send_response(202 if answer is None else 400 if failed else 200)
            if message.get("method") == "initialize":
                self.send_header("Mcp-Session-Id", session)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_GET(self):
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_GET

        def log_message(self, *_):
            pass

    return Handler


def conformance(program):
    sessions = {}
    bridge = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(program, sessions))
    threading.Thread(target=bridge.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{bridge.server_port}/mcp"
    suite = [NODE, f"{PACKAGES}/.bin/conformance", "server", "--url", url]
    for version, scenarios in SCENARIOS.items():
        for scenario, checks in scenarios.items():
            words = [*suite, "--scenario", scenario, "--spec-version", version]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            told = re.sub("\x1b[^m]*m", "", done.stdout)
            context = f"{version} {scenario}\n{told}\n{done.stderr}"
            if checks is ALL:
                assert done.returncode == 0 and " 0 failed" in told, context
            for check in checks or []:
                found = re.findall(rf"\[{check} *\] (\w+)", told)
                assert found and set(found) == {"SUCCESS"}, f"{check} {context}"
    bridge.shutdown()
    for server in sessions.values():
        server.end()


def inspector(program):
    cli = [NODE, f"{PACKAGES}/.bin/mcp-inspector", "--cli", program, "mcp", "serve"]
    done = subprocess.run(
        [*cli, "--method", "tools/list"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    tools = [tool["name"] for tool in json.loads(done.stdout)["tools"]]
    assert "workspace_exec" in tools, tools
    call = ["--method", "tools/call", "--tool-name", "workspace_list"]
    done = subprocess.run([*cli, *call], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert json.loads(done.stdout)["structuredContent"]["count"] == 0, done.stdout


if __name__ == "__main__":
    inspector(sys.argv[1])
    conformance(sys.argv[1])
