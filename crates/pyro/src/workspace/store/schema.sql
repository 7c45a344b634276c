-- What is known of workspaces. Times are seconds since 1970. JSON only where nothing is looked up by it.
CREATE TABLE workspace (
    id               TEXT PRIMARY KEY,
    name             TEXT,
    labels           TEXT NOT NULL,
    -- What never changes: environment, size, seed, lineage.
    facts            TEXT NOT NULL,
    ttl_seconds      INTEGER,
    state            TEXT NOT NULL,
    -- What somebody who holds the lock is doing; brought to its end by the next one if he dies.
    transition       TEXT,
    machine_id       TEXT,
    -- File name of the disk that the guest writes to.
    disk             TEXT,
    -- Why and when its last machine ended.
    stopped          TEXT,
    created_at       REAL NOT NULL,
    last_activity_at REAL NOT NULL,
    session_at       REAL NOT NULL,
    reset_count      INTEGER NOT NULL,
    last_reset_at    REAL,
    last_sequence    INTEGER NOT NULL
) STRICT;
CREATE INDEX workspace_name ON workspace (name);

CREATE TABLE command (
    workspace_id TEXT NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    sequence     INTEGER NOT NULL,
    command      TEXT NOT NULL,
    cwd          TEXT NOT NULL,
    -- `running`, `ended`, `interrupted`: its client or its machine ended before it did.
    state        TEXT NOT NULL,
    -- The job that runs it, if it was detached.
    job_id       TEXT,
    -- The process that waits for its end, with its start time, if it was not.
    writer       TEXT,
    started_at   REAL NOT NULL,
    recorded_at  REAL,
    exit_code    INTEGER,
    duration_ms  INTEGER,
    timed_out    INTEGER NOT NULL DEFAULT 0,
    truncated    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace_id, sequence)
) STRICT;

CREATE TABLE snapshot (
    workspace_id  TEXT NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    created_at    REAL NOT NULL,
    -- Entries and bytes of the tree in the workspace's directory.
    entry_count   INTEGER NOT NULL,
    tree_bytes    INTEGER NOT NULL,
    -- What is kept of it below the directory of snapshots: absent while it is that of the template.
    kept          TEXT,
    with_memory   INTEGER NOT NULL,
    -- Digest of the tree.
    generation    TEXT,
    PRIMARY KEY (workspace_id, name)
) STRICT;
CREATE INDEX snapshot_kept ON snapshot (kept);
