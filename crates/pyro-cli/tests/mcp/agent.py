"""An agent that has nothing but MCP: the official client against `pyro mcp serve`, with real machines.

    python3 agent.py SCENARIO PROGRAM DIRECTORY

The client compares every result with the tool's output schema. What scenarios expect besides is asserted here; one that
ends with status 0 has passed.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import ListRootsResult, Root

# How a client begins: with `initialize`, with a call at once, or by asking with `server/discover`.
SESSION, STATELESS, ASKED = "legacy", "2026-07-28", "auto"


class Refused(Exception):
    """A call that the server answered with an error that a model is to read."""

    def __init__(self, result):
        self.told = result.structured_content
        super().__init__(result.content[0].text)


def connected(program, *flags, mode=SESSION, roots=(), cwd="/"):
    async def told_roots(_context):
        return ListRootsResult(roots=[Root(uri=Path(root).as_uri()) for root in roots])

    server = StdioServerParameters(
        command=program, args=["mcp", "serve", *flags], env=dict(os.environ), cwd=cwd
    )
    return Client(server, mode=mode, list_roots_callback=told_roots if roots else None)


def told_by_config(program, *flags):
    """The server's words as the program itself tells them to a host."""
    words = [program, "host", "print-config", "generic", *flags]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    server = json.loads(done.stdout)["mcpServers"]["pyro"]
    assert server["command"] == program and server["args"][:2] == ["mcp", "serve"], server
    return server["args"][2:]


async def call(client, tool, progress=None, **arguments):
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    if result.is_error:
        raise Refused(result)
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client, code, tool, **arguments):
    try:
        told = await call(client, tool, **arguments)
    except Refused as error:
        assert error.told["code"] == code, error.told
        return error.told
    raise AssertionError(f"{tool} was not refused: {told}")


def git(directory, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout


def checkout(directory):
    """A project with a failing test, on the host."""
    project = Path(directory) / "project"
    (project / "src").mkdir(parents=True)
    (project / "src/add.sh").write_text("echo $(($1 - $2))\n")
    (project / "test.sh").write_text('test "$(sh src/add.sh 2 3)" = 5 && echo passed\n')
    (project / ".gitignore").write_text("ignored\n")
    (project / "ignored").write_text("not for the guest\n")
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message=begin")
    return project


PATCH = """\
diff --git a/src/add.sh b/src/add.sh
--- a/src/add.sh
+++ b/src/add.sh
@@ -1 +1 @@
-echo $(($1 - $2))
+echo $(($1 + $2))
"""


async def daily_loop(program, directory):
    """From a checkout to a reviewed fix, and back to the beginning."""
    project = checkout(directory)
    heard = []

    async def progress(_at, _total, message):
        heard.append(message)

    async with connected(program, cwd=str(project / "src")) as client:
        assert client.server_info.name == "pyro_mcp"
        assert str(project) in client.instructions
        tools = (await client.list_tools()).tools
        assert len(tools) == 19, [tool.name for tool in tools]

        made = await call(client, "workspace_create", progress, name="fix", labels={"issue": "7"})
        assert heard, "nobody was told how it goes"
        work = made["workspace_id"]
        seed = made["workspace_seed"]
        assert (seed["mode"], seed["origin_kind"]) == ("git_checkout", "project_path"), seed

        run = functools.partial(call, client, "workspace_exec", workspace_id=work)
        failed = await run(command="sh test.sh")
        assert failed["exit_code"] == 1 and failed["state"] == "ended", failed
        assert failed["cwd"] == "/workspace" and failed["environment"] == "debian:12", failed
        assert failed["execution_mode"] == "guest_vsock", failed
        assert (await run(command="ls -A"))["stdout"] == ".gitignore\nsrc\ntest.sh\n"

        listed = await call(client, "workspace_file_list", workspace_id=work, recursive=True)
        paths = [entry["path"] for entry in listed["entries"]]
        assert "/workspace/src/add.sh" in paths, paths
        read = await call(client, "workspace_file_read", workspace_id=work, path="src/add.sh")
        assert read["content"] == "echo $(($1 - $2))\n"
        found = await call(client, "workspace_file_grep", workspace_id=work, pattern=r"\$1 - ")
        assert found["matches"] == 1, found

        patch = functools.partial(call, client, "workspace_patch_apply", workspace_id=work)
        assert (await patch(patch=PATCH))["changed"]
        misfit = await refused(
            client, "conflict", "workspace_patch_apply", workspace_id=work, patch=PATCH
        )
        assert misfit["details"], misfit
        assert (await run(command="sh test.sh"))["stdout"] == "passed\n"
        edit = functools.partial(call, client, "workspace_file_edit", workspace_id=work)
        await edit(path="test.sh", old_text="echo passed", new_text="echo 'all passed'")
        write = functools.partial(call, client, "workspace_file_write", workspace_id=work)
        await write(path="NOTES", text="It added nothing up.\n")

        diff = await call(client, "workspace_diff", workspace_id=work)
        assert diff["summary"]["total"] == 3 and not diff["truncated"], diff
        (project / "host.patch").write_text(diff["patch"])
        git(project, "apply", "--check", "host.patch")
        (project / "host.patch").unlink()

        (project / "src/more.sh").write_text("echo more\n")
        push = functools.partial(call, client, "workspace_sync_push", workspace_id=work)
        sync = (await push(source_path="src", dest="/workspace/pushed"))["workspace_sync"]
        assert sync["entry_count"] >= 2, sync
        assert (await run(command="sh pushed/more.sh"))["stdout"] == "more\n"

        export = functools.partial(call, client, "workspace_export", workspace_id=work)
        await export(path="src/add.sh", output_path="fixed.sh")
        assert (project / "fixed.sh").read_text() == "echo $(($1 + $2))\n"
        again = {"workspace_id": work, "path": "NOTES", "output_path": "fixed.sh"}
        await refused(client, "already_exists", "workspace_export", **again)
        outside = {"workspace_id": work, "path": "NOTES", "output_path": "/tmp/notes"}
        await refused(client, "permission_denied", "workspace_export", **outside)

        summary = await call(client, "workspace_summary", workspace_id=work)
        assert summary["changes"]["available"], summary
        assert summary["artifacts"]["exports"], summary
        logs = await call(client, "workspace_logs", workspace_id=work)
        commands = [entry["command"] for entry in logs["entries"]]
        assert commands[:2] == ["sh test.sh", "ls -A"], commands
        rest = await call(client, "workspace_logs", workspace_id=work, after_sequence=2)
        assert rest["entries"][0]["command"] == "sh test.sh", rest

        update = functools.partial(call, client, "workspace_update", workspace_id=work)
        assert (await update(name="done"))["name"] == "done"
        listing = await call(client, "workspace_list")
        assert [item["name"] for item in listing["workspaces"]] == ["done"], listing

        reset = await call(client, "workspace_reset", workspace_id=work)
        assert reset["reset_count"] == 1, reset
        assert (await run(command="sh test.sh"))["exit_code"] == 1

    # Nothing of it belonged to the session.
    async with connected(program, mode=STATELESS) as client:
        assert client.protocol_version == STATELESS
        status = await call(client, "workspace_status", workspace_id="done")
        assert status["workspace_id"] == work and status["state"] == "started", status
        assert (await call(client, "workspace_delete", workspace_id=work))["deleted"]
        await refused(client, "not_found", "workspace_status", workspace_id=work)

    flags = told_by_config(program, "--repo-url", str(project), "--repo-ref", "main")
    async with connected(program, *flags, mode=ASKED) as client:
        assert client.protocol_version == STATELESS
        assert str(project) in client.instructions
        made = await call(client, "workspace_create")
        seed = made["workspace_seed"]
        assert seed["origin_kind"] == "repo_url" and seed["mode"] == "repository", seed
        assert seed["origin_ref"].endswith(git(project, "rev-parse", "HEAD").strip()), seed
        await call(client, "workspace_delete", workspace_id=made["workspace_id"])


async def commands(program, directory):
    """Commands that take long, say much, are cancelled, and arguments of a megabyte."""
    roots = [directory]
    flags = ("--exec-wait-seconds", "2")
    async with connected(program, *flags, roots=roots, cwd=directory) as client:
        work = (await call(client, "workspace_create"))["workspace_id"]
        run = functools.partial(call, client, "workspace_exec", workspace_id=work)

        begun = time.monotonic()
        line = "echo first; sleep 8; echo last >&2; exit 3"
        told = await run(command=line)
        assert time.monotonic() - begun < 7
        assert told["state"] == "running" and told["exit_code"] is None, told
        assert "job_id" in told["next"], told
        job = {"job_id": told["job_id"]}
        rest, first, said = told, told["stdout"], told["stderr"]
        while rest["state"] == "running":
            cursors = {name: rest[name] for name in ("stdout_cursor", "stderr_cursor")}
            rest = await run(**job, **cursors)
            first, said = first + rest["stdout"], said + rest["stderr"]
        assert (rest["exit_code"], first, said) == (3, "first\n", "last\n"), rest

        endless = await run(command="sleep 301", timeout_seconds=600)
        ended = await run(job_id=endless["job_id"], end_job=True)
        assert ended["state"] == "ended" and ended["exit_code"] == 143, ended

    async with connected(program, roots=roots, cwd=directory) as client:
        run = functools.partial(call, client, "workspace_exec", workspace_id=work)
        much = await run(command="seq 1 100000")
        assert much["truncated"] and len(much["stdout"]) < 40_000, len(much["stdout"])
        assert much["stdout"].startswith("1\n2\n") and much["stdout"].endswith("\n100000\n")
        whole, cursor = "", 0
        while len(whole) < 588_895:
            part = await run(job_id=much["job_id"], stdout_cursor=cursor)
            whole, cursor = whole + part["stdout"], part["stdout_cursor"]
        assert whole == "".join(f"{number}\n" for number in range(1, 100_001))

        slow = await run(command="sleep 300", timeout_seconds=3)
        slow = await run(job_id=slow["job_id"])
        assert slow["timed_out"] and slow["state"] == "ended", slow

        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(run, command="sleep 302", timeout_seconds=600))
            await until(run, "sleep 302", True)
            group.cancel_scope.cancel()
        await until(run, "sleep 302", False)

        text = "".join(f"line {number} \u20ac\n" for number in range(62_000))[:1_000_000]
        write = functools.partial(call, client, "workspace_file_write", workspace_id=work)
        size = len(text.encode())
        assert (await write(path="big", text=text))["bytes_written"] == size
        await refused(
            client,
            "invalid_argument",
            "workspace_file_write",
            workspace_id=work,
            path="bigger",
            text="x" * (1024 * 1024 + 1),
        )
        part = await call(
            client, "workspace_file_read", workspace_id=work, path="big", offset=size - 10
        )
        assert not part["truncated"] and text.endswith(part["content"]), part

        await write(path="many/1", text="x\n")
        made = await run(command="cd many && seq -f f%g 1500 | xargs touch")
        while made["state"] == "running":
            made = await run(job_id=made["job_id"])
        names, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = await call(
                client, "workspace_file_list", workspace_id=work, path="many", **more
            )
            names += [entry["path"] for entry in page["entries"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(names) == len(set(names)) == 1501, len(names)

        diff, patch, cursor = None, "", 0
        while cursor is not None:
            diff = await call(client, "workspace_diff", workspace_id=work, cursor=cursor)
            patch, cursor = patch + diff["patch"], diff["next_cursor"]
        assert len(patch) > size and patch.count("diff --git") == diff["summary"]["total"]

        once = await call(client, "vm_run", command="echo out; echo err >&2; exit 7")
        assert (once["exit_code"], once["stdout"], once["stderr"]) == (7, "out\n", "err\n")
        assert once["cleanup"]["deleted"] and once["execution_mode"] == "guest_vsock", once
        with anyio.move_on_after(3):
            await call(client, "vm_run", command="sleep 303")
        with anyio.CancelScope() as given_up:

            async def give_up(*_):
                given_up.cancel()

            await call(client, "workspace_create", give_up, name="never")
        assert given_up.cancelled_caught
        left = await call(client, "workspace_list")
        assert [item["workspace_id"] for item in left["workspaces"]] == [work], left
        await call(client, "workspace_delete", workspace_id=work)
        assert (await call(client, "workspace_list"))["count"] == 0


async def runs(run, command):
    """Whether a process of the guest has this command line."""
    line = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done"
    told = (await run(command=line))["stdout"]
    assert "init" in told or "agent" in told, told
    return f"{command} " in told.splitlines()


async def until(run, command, wanted):
    """Waits until a process of the guest has this command line, or none has it."""
    for _ in range(200):
        if await runs(run, command) == wanted:
            return
        await anyio.sleep(0.1)
    raise AssertionError(f"`{command}` runs in the guest: {not wanted}")


async def dies(program, directory):
    """A client that is killed in the middle of a call."""
    async with connected(program) as client:
        work = (await call(client, "workspace_create", name="survivor"))["workspace_id"]
        run = functools.partial(call, client, "workspace_exec", workspace_id=work)
        words = [sys.executable, __file__, "victim", program, work]
        doomed = subprocess.Popen(words)
        await until(run, "sleep 304", True)
        servers = children(doomed.pid)
        assert servers, "it has no server"
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        await until(run, "sleep 304", False)
        with anyio.fail_after(20):
            while any(alive(server) for server in servers):
                await anyio.sleep(0.05)
        await call(client, "workspace_delete", workspace_id=work)


def status(pid):
    """State and parent of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text.rsplit(")", 1)[1].split()[:2]
    return state, int(parent)


def children(parent):
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (status(pid) or ("", 0))[1] == parent]


def alive(pid):
    found = status(pid)
    return found is not None and found[0] != "Z"


async def victim(program, work):
    async with connected(program) as client:
        await call(
            client,
            "workspace_exec",
            workspace_id=work,
            command="sleep 304",
            timeout_seconds=600,
        )


async def many(program, directory, workspaces="4"):
    """Fifty calls in flight over several workspaces, each answered with its own result."""
    async with connected(program) as client:
        made = []

        async def make():
            small = {"mem_mib": 256}
            made.append((await call(client, "workspace_create", **small))["workspace_id"])

        async with anyio.create_task_group() as group:
            for _ in range(int(workspaces)):
                group.start_soon(make)

        told = {}

        async def ask(number):
            work = made[number % len(made)]
            line = f"sleep 1; echo {number}; cat /proc/sys/kernel/random/boot_id"
            done = await call(client, "workspace_exec", workspace_id=work, command=line)
            answer, machine = done["stdout"].split()
            assert answer == str(number) and done["workspace_id"] == work
            told[number] = machine

        begun = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, number)
        took = time.monotonic() - begun
        assert took < 25, f"fifty seconds of sleep took {took:.1f} s: not side by side"
        assert len(told) == 50
        # Each machine answered for its own workspace.
        assert all(told[number] == told[number % len(made)] for number in told)
        for work in made:
            await call(client, "workspace_delete", workspace_id=work)


def main():
    scenario, *rest = sys.argv[1:]
    scenarios = [daily_loop, commands, dies, victim, many]
    wanted = {function.__name__: function for function in scenarios}[scenario]
    anyio.run(functools.partial(wanted, *rest))


if __name__ == "__main__":
    main()
