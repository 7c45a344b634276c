"""What agents do over MCP alone besides fixing one bug: several attempts side by side, code that nobody trusts, and paths of
the host that are none of theirs.

    python3 stories.py SCENARIO PROGRAM DIRECTORY
"""

import functools
import os
import sys
from pathlib import Path

import anyio
from agent import PATCH, STATELESS, Refused, call, checkout, connected, git, refused

OTHER_PATCH = PATCH.replace("+echo $(($1 + $2))", "+expr $1 + $2")


async def parallel(program, directory):
    """Several attempts at the same bug, which know nothing of each other."""
    project = checkout(directory)
    attempts = {"one": PATCH, "two": OTHER_PATCH, "three": None}
    ids = {}
    async with connected(program, cwd=str(project)) as client:

        async def attempt(name, patch):
            labels = {"bug": "7", "try": name}
            made = await call(
                client, "workspace_create", name=name, labels=labels, mem_mib=256
            )
            assert made["execution_mode"] == "guest_vsock", made
            work = ids[name] = made["workspace_id"]
            run = functools.partial(call, client, "workspace_exec", workspace_id=work)
            assert (await run(command="sh test.sh"))["exit_code"] == 1
            if patch:
                await call(client, "workspace_patch_apply", workspace_id=work, patch=patch)
            else:
                await run(command="rm src/add.sh; echo given up > notes")
            done = await run(command="sh test.sh")
            assert done["exit_code"] == (0 if patch else 1), done

        async with anyio.create_task_group() as group:
            for name, patch in attempts.items():
                group.start_soon(attempt, name, patch)

    # Another session finds them by their names and labels.
    async with connected(program, mode=STATELESS, cwd=str(project)) as client:
        listed = (await call(client, "workspace_list"))["workspaces"]
        found = {item["labels"]["try"]: item["workspace_id"] for item in listed}
        assert found == ids, listed
        diff = functools.partial(call, client, "workspace_diff")
        one, two, three = [(await diff(workspace_id=name))["patch"] for name in attempts]
        assert "+echo $(($1 + $2))" in one and "expr" not in one, one
        assert "+expr $1 + $2" in two and "+echo" not in two, two
        assert "deleted file" in three and "+given up" in three, three
        for name in ("one", "two"):
            notes = {"workspace_id": name, "path": "notes"}
            await refused(client, "not_found", "workspace_file_read", **notes)
        await call(client, "workspace_reset", workspace_id="three")
        assert not (await diff(workspace_id="three"))["changed"]
        assert (await diff(workspace_id="two"))["patch"] == two
        update = functools.partial(call, client, "workspace_update", workspace_id="two")
        chosen = await update(name="chosen", labels={"state": "done"}, clear_labels=["try"])
        assert chosen["labels"] == {"bug": "7", "state": "done"}, chosen
        export = {"workspace_id": "chosen", "path": "src/add.sh", "output_path": "fixed.sh"}
        await call(client, "workspace_export", **export)
        assert (project / "fixed.sh").read_text() == "expr $1 + $2\n"
        assert git(project, "status", "--short") == "?? fixed.sh\n"
        for work in ids.values():
            await call(client, "workspace_delete", workspace_id=work)
        assert (await call(client, "workspace_list"))["count"] == 0


async def inspection(program, directory):
    """A directory that somebody sent is looked at, and only a report comes out."""
    home = Path(directory)
    secret = home / "secret"
    secret.write_text("of this host\n")
    sent = home / "sent"
    hooks = sent / ".git/hooks"
    hooks.mkdir(parents=True)
    escaped = home / "escaped"
    for name in ("post-checkout", "post-index-change", "pre-commit"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {escaped}\n")
        (hooks / name).chmod(0o755)
    (sent / "config").symlink_to(secret)
    (sent / "readme").symlink_to("../secret")
    script = f"touch {escaped}\ntrue > /dev/tcp/1.1.1.1/53\ncat config readme\nls /sys/class/net\n"
    (sent / "setup.sh").write_text(script)
    out = home / "out"
    out.mkdir()

    flags = ("--no-project-source", "--allow-dir", str(out), "--allow-dir", str(sent))
    async with connected(program, *flags) as client:
        made = await call(client, "workspace_create", seed_path=str(sent))
        assert made["network_policy"] == "off" and not made["network_enabled"], made
        assert made["execution_mode"] == "guest_vsock", made
        work = {"workspace_id": made["workspace_id"]}
        listed = await call(client, "workspace_file_list", recursive=True, **work)
        kinds = {entry["path"]: entry["artifact_type"] for entry in listed["entries"]}
        assert kinds["/workspace/setup.sh"] == "file", kinds
        assert kinds["/workspace/config"] == "symlink", kinds
        read = await call(client, "workspace_file_read", path="setup.sh", **work)
        assert read["content"] == script, read
        for link in ("config", "readme"):
            try:
                told = await call(client, "workspace_file_read", path=link, **work)
            except Refused as error:
                told = error.told
            assert "of this host" not in str(told), told
        line = "ls -A > report; sh setup.sh >> report 2>&1; true"
        ran = await call(client, "workspace_exec", command=line, **work)
        assert ran["exit_code"] == 0 and ran["execution_mode"] == "guest_vsock", ran
        report = out / "report"
        await call(
            client, "workspace_export", path="report", output_path=str(report), **work
        )
        text = report.read_text()
        assert "setup.sh\n" in text and text.endswith("\nlo\n"), text
        assert "of this host" not in text, text
        # Nothing else is asked for, and nothing else is given: no way into what was sent, none beside the report.
        for path in (home / "report", secret, Path("/tmp/report")):
            beside = {"path": "report", "output_path": str(path), **work}
            await refused(client, "permission_denied", "workspace_export", **beside)
        await call(client, "workspace_delete", **work)
    assert os.listdir(out) == ["report"]
    assert not escaped.exists() and secret.read_text() == "of this host\n"


async def escapes(program, directory):
    """What comes out of a workspace is no way to somewhere else, however quickly it comes."""
    home = Path(directory)
    secret, project = home / "secret", home / "project"
    secret.mkdir()
    (secret / "key").write_text("of this host\n")
    project.mkdir()
    flags = ("--project-path", str(project))
    async with connected(program, *flags) as client:
        made = await call(client, "workspace_create")
        work = {"workspace_id": made["workspace_id"]}
        line = f"echo planted > new; mkdir tree; ln -s {secret} link; ln -s {secret} tree/link"
        await call(client, "workspace_exec", command=line, **work)
        export = functools.partial(call, client, "workspace_export", **work)
        push = functools.partial(call, client, "workspace_sync_push", **work)

        # Links are exported as they are, and lead nowhere afterwards.
        await export(path="link", output_path="a")
        await export(path="tree", output_path="b")
        for link in ("a", "b/link"):
            assert (project / link).readlink() == secret
            for below in ("", "/new", "/deep/new", "/key"):
                output = {"path": "new", "output_path": link + below, **work}
                await refused(client, "permission_denied", "workspace_export", **output)
                source = {"source_path": link + below, **work}
                told = await refused_push(push, source)
                assert told["code"] in ("permission_denied", "not_found"), told
            made_of = {"command": "true", "environment": f"dir:{link}"}
            await refused(client, "permission_denied", "vm_run", **made_of)

        # A link that appears between the judgement of a path and its use is not followed either.
        for number in range(40):

            async def attempt(what, output, delay):
                await anyio.sleep(delay)
                try:
                    await export(path=what, output_path=output)
                except Refused as error:
                    assert error.told["code"] != "internal", error.told

            async with anyio.create_task_group() as group:
                name = f"x{number}"
                group.start_soon(attempt, "link", name, 0)
                for late in (0, 0.001, 0.003, 0.01):
                    group.start_soon(attempt, "new", f"{name}/new", late)
                    group.start_soon(attempt, "new", f"{name}/deep/new", late)
            assert os.listdir(secret) == ["key"], f"attempt {number}: {os.listdir(secret)}"
        told = await call(client, "workspace_exec", command="cat link/key; find .", **work)
        assert "of this host" not in told["stdout"], told
        await call(client, "workspace_delete", **work)
    assert (secret / "key").read_text() == "of this host\n"


async def refused_push(push, source):
    try:
        told = await push(**source)
    except Refused as error:
        return error.told
    raise AssertionError(f"it was taken in: {told}")


def main():
    scenario, *rest = sys.argv[1:]
    wanted = {function.__name__: function for function in [parallel, inspection, escapes]}
    anyio.run(functools.partial(wanted[scenario], *rest))


if __name__ == "__main__":
    main()
