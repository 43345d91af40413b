package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// applicationID marks the file as ours ("rpml") in SQLite's own header field.
const applicationID = 0x72706d6c

// migrations bring a database from version i to i+1. A published entry is
// never edited; a change of shape is another entry.
var migrations = []string{
	// Documents are apart from the runs so that a list never touches them.
	// Times are microseconds since 1970, UTC.
	`
CREATE TABLE runs (
  id               TEXT PRIMARY KEY,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  finished_at      INTEGER,
  target           TEXT NOT NULL,
  idempotency_key  TEXT UNIQUE,
  state            TEXT NOT NULL CHECK (state IN
    ('created','planning','planned','approved','running','interrupted','failed','done','cancelled')),
  plan_hash        TEXT NOT NULL DEFAULT '',
  approved_by      TEXT NOT NULL DEFAULT '',
  approved_at      INTEGER,
  cancel_requested TEXT NOT NULL DEFAULT '',
  verdict          TEXT NOT NULL DEFAULT '',
  error            TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_time  ON runs (created_at DESC, id DESC);
CREATE INDEX runs_by_state ON runs (state, created_at DESC, id DESC);

CREATE TABLE documents (
  run_id TEXT NOT NULL REFERENCES runs (id),
  name   TEXT NOT NULL CHECK (name IN ('request','plan','outcome')),
  body   BLOB NOT NULL,
  PRIMARY KEY (run_id, name)
) STRICT;

CREATE TABLE stages (
  run_id      TEXT NOT NULL REFERENCES runs (id),
  stage       TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('started','finished','skipped')),
  attempt     INTEGER NOT NULL,
  output      BLOB,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER,
  PRIMARY KEY (run_id, stage)
) STRICT;

CREATE TABLE attempts (
  key        TEXT PRIMARY KEY,
  run_id     TEXT NOT NULL REFERENCES runs (id),
  stage      TEXT NOT NULL,
  arm        TEXT NOT NULL,
  shard      INTEGER NOT NULL,
  n          INTEGER NOT NULL,
  spec       BLOB,
  handle     TEXT NOT NULL DEFAULT '',
  final      INTEGER NOT NULL DEFAULT 0 CHECK (final IN (0, 1)),
  status     BLOB,
  wall_s     REAL NOT NULL DEFAULT 0,
  gpu_hours  REAL NOT NULL DEFAULT 0,
  usd        REAL NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_by_run ON attempts (run_id, stage, arm, shard, n);
CREATE INDEX attempts_live   ON attempts (run_id) WHERE final = 0;

CREATE TABLE events (
  run_id TEXT NOT NULL REFERENCES runs (id),
  seq    INTEGER NOT NULL,
  time   INTEGER NOT NULL,
  stage  TEXT NOT NULL DEFAULT '',
  kind   TEXT NOT NULL,
  data   BLOB,
  PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER runs_final BEFORE UPDATE OF state ON runs
  WHEN OLD.state IN ('done','cancelled') AND NEW.state <> OLD.state
  BEGIN SELECT RAISE(ABORT, 'a finished run keeps its state'); END;
CREATE TRIGGER stages_final BEFORE UPDATE ON stages
  WHEN OLD.state IN ('finished','skipped')
  BEGIN SELECT RAISE(ABORT, 'a finished stage keeps its state'); END;
CREATE TRIGGER attempts_final BEFORE UPDATE ON attempts
  WHEN OLD.final = 1
  BEGIN SELECT RAISE(ABORT, 'a finished attempt keeps its state'); END;
CREATE TRIGGER documents_final BEFORE UPDATE ON documents
  BEGIN SELECT RAISE(ABORT, 'a stored document is not changed'); END;
CREATE TRIGGER events_final BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'an event is not changed'); END;
CREATE TRIGGER runs_kept      BEFORE DELETE ON runs      WHEN OLD.state NOT IN ('done','cancelled')
  BEGIN SELECT RAISE(ABORT, 'only a finished run may be removed'); END;
`,
	// What a run is about, as its plan says, so that runs are found by it; who
	// submitted it to which queue; who may do so; and what was done.
	`
ALTER TABLE runs ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN title   TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_subject ON runs (subject, created_at DESC, id DESC) WHERE subject <> '';
UPDATE runs SET (subject, title) = (SELECT ` + subjectOf("CAST(d.body AS TEXT)") + `, ` + titleOf("CAST(d.body AS TEXT)") + `
  FROM documents d WHERE d.run_id = runs.id AND d.name = 'plan' AND json_valid(CAST(d.body AS TEXT)))
  WHERE EXISTS (SELECT 1 FROM documents d WHERE d.run_id = runs.id AND d.name = 'plan' AND json_valid(CAST(d.body AS TEXT)));

CREATE TABLE submissions (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id       TEXT NOT NULL UNIQUE REFERENCES runs (id),
  queue        TEXT NOT NULL,
  submitter    TEXT NOT NULL,
  auto_approve TEXT NOT NULL DEFAULT '',
  reserved     REAL NOT NULL DEFAULT 0,
  created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX submissions_auto ON submissions (seq) WHERE auto_approve <> '';
CREATE INDEX submissions_by_submitter ON submissions (submitter, seq DESC);

CREATE TABLE keys (
  id         TEXT PRIMARY KEY,
  hash       BLOB NOT NULL UNIQUE,
  grant_json BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT;

CREATE TABLE audit (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  time    INTEGER NOT NULL,
  actor   TEXT NOT NULL,
  action  TEXT NOT NULL,
  subject TEXT NOT NULL DEFAULT '',
  remote  TEXT NOT NULL DEFAULT '',
  detail  TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, seq DESC);
CREATE TRIGGER audit_final BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is not changed'); END;
CREATE TRIGGER audit_kept BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is kept'); END;
`,
}

// subjectOf and titleOf are SQL for what the JSON of a plan is about: kind and
// id of its target, and the title of the paper or the name of the model.
func subjectOf(plan string) string {
	return "COALESCE(json_extract(" + plan + ", '$.target.kind') || ':' || json_extract(" + plan + ", '$.target.id'), '')"
}

func titleOf(plan string) string {
	return "COALESCE(json_extract(" + plan + ", '$.paper.title'), json_extract(" + plan + ", '$.model.id'), '')"
}

// migrate brings the file to the newest version in one transaction, however
// many processes open it at the same moment.
func (s *Store) migrate(ctx context.Context) error {
	if err := s.check(ctx, s.db); err != nil {
		return err
	}
	if err := s.setWAL(ctx); err != nil {
		return err
	}
	return s.transact(ctx, func(tx *sql.Tx) error {
		if err := s.check(ctx, tx); err != nil {
			return err
		}
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		for ; version < len(migrations); version++ {
			if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
				return fmt.Errorf("migrate store to version %d: %w", version+1, err)
			}
		}
		// Pragmas take no parameters; both values are constants of ours.
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version))
		return err
	})
}

// setWAL switches the journal. SQLite answers "busy" at once, without its
// busy timeout, when another process is switching it too.
func (s *Store) setWAL(ctx context.Context) error {
	deadline := time.Now().Add(s.cfg.BusyTimeout)
	for {
		var mode string
		err := s.db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if c := code(err); err == nil || (c != sqlite3.SQLITE_BUSY && c != sqlite3.SQLITE_LOCKED) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// check refuses a database that is not ours or is newer than this program.
func (s *Store) check(ctx context.Context, q querier) error {
	var app, version, tables int
	err := errors.Join(
		q.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app),
		q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version),
		q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables),
	)
	switch {
	case err != nil:
		return err
	case app != applicationID && (app != 0 || version != 0 || tables != 0):
		return &FileError{Path: s.path, Reason: "it is the database of another program", Fix: "move it away or choose another state folder"}
	case version > len(migrations):
		return &FileError{Path: s.path, Reason: fmt.Sprintf("its version %d is newer than the %d that this program knows", version, len(migrations)),
			Fix: "use the newer program, or choose another state folder"}
	}
	return nil
}
