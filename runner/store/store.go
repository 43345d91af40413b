// Package store keeps runs, their stages, attempts and events in one SQLite
// file, so that any process can see where a run stands and any later process
// can take it up again.
//
// Every method is one small transaction. The sequence number of an event is
// given in the same transaction as the change of state that it describes, so
// a reader never sees one without the other. Final states are never left: the
// database itself refuses it, by triggers, whoever asks. Several processes
// may use the file at once (write-ahead log, busy timeout).
//
// The package knows nothing of what the stages do; the words for stages and
// kinds of event belong to package runner.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite" // also registers the "sqlite" driver
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrNotFound is wrapped by every look-up of something that is not there.
var ErrNotFound = errors.New("not found")

// ErrTerminal is wrapped when a change would leave a final state.
var ErrTerminal = errors.New("the state is final")

// Config tunes a store; the zero value works.
type Config struct {
	Now         func() time.Time
	Hook        func(point string) // see [HookPoints]
	BusyTimeout time.Duration      // how long a write waits for another process; 0 means 15 s
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	db   *sql.DB
	path string
	cfg  Config

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every write of this process
}

// FileError says that the database file itself cannot be used.
type FileError struct {
	Path   string
	Reason string
	Fix    string
	Err    error
}

func (e *FileError) Error() string {
	return fmt.Sprintf("the store %s: %s; %s", e.Path, e.Reason, e.Fix)
}

// Unwrap returns the driver's error.
func (e *FileError) Unwrap() error { return e.Err }

// UserError returns what the user can do about it.
func (e *FileError) UserError() string { return e.Fix }

// Open opens the database at path, creating it and its folder when missing
// and bringing an older one up to date. A file that is no database, is
// damaged, belongs to another program or comes from a newer version of this
// one is a [FileError].
func Open(ctx context.Context, path string, cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	if cfg.BusyTimeout == 0 {
		cfg.BusyTimeout = 15 * time.Second
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", cfg.BusyTimeout.Milliseconds()),
		"foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)",
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: abs}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db.SetMaxOpenConns(4)
	s := &Store{db: db, path: abs, cfg: cfg, changed: make(chan struct{})}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(s.fileError(err), db.Close())
	}
	return s, nil
}

// Close releases the database.
func (s *Store) Close() error { return s.db.Close() }

// fileError turns the driver's error codes into words with a remedy.
func (s *Store) fileError(err error) error {
	var fe *FileError
	if errors.As(err, &fe) {
		return err
	}
	switch code(err) {
	case sqlite3.SQLITE_NOTADB:
		return &FileError{s.path, "it is not a database", "move the file away and run again", err}
	case sqlite3.SQLITE_CORRUPT:
		return &FileError{s.path, "it is damaged", "move it and its -wal file away and run again; committed results are kept elsewhere and stay", err}
	case sqlite3.SQLITE_CANTOPEN:
		return &FileError{s.path, "it cannot be opened", "check that the folder exists and may be written", err}
	case sqlite3.SQLITE_READONLY:
		return &FileError{s.path, "it cannot be written", "check the rights of the file and its folder", err}
	case sqlite3.SQLITE_IOERR:
		return &FileError{s.path, "it cannot be read or written: the disk is full or failing", "free some space and run again; nothing that was finished is lost", err}
	case sqlite3.SQLITE_FULL:
		return &FileError{s.path, "the disk is full", "free some space and run again; nothing that was finished is lost", err}
	}
	return err
}

// code is the primary result code of a driver error, 0 when it is none.
func code(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

// write runs fn in one transaction between the two hook points of what.
func (s *Store) write(ctx context.Context, what string, fn func(tx *sql.Tx) error) error {
	s.cfg.Hook("store:" + what + ":before")
	if err := s.transact(ctx, fn); err != nil {
		return fmt.Errorf("store: %s: %w", what, s.fileError(terminal(err)))
	}
	s.cfg.Hook("store:" + what + ":after")
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	return nil
}

func (s *Store) transact(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// terminal maps the refusal of a trigger to ErrTerminal.
func terminal(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_TRIGGER {
		return fmt.Errorf("%w: %w", ErrTerminal, err)
	}
	return err
}

// HookPoints lists every point at which Config.Hook is called, in no
// particular order; the names are stable.
func HookPoints() []string {
	var out []string
	for _, w := range []string{
		whatCreate, whatState, whatPlan, whatApprove, whatCancel, whatFinish,
		whatStageStart, whatStageFinish, whatAttempt, whatHandle, whatStatus, whatEvents, whatKey, whatAudit,
	} {
		out = append(out, "store:"+w+":before", "store:"+w+":after")
	}
	return out
}

// The names of the writes, as the hook points carry them.
const (
	whatCreate      = "create_run"
	whatState       = "set_state"
	whatPlan        = "save_plan"
	whatApprove     = "approve"
	whatCancel      = "request_cancel"
	whatFinish      = "finish"
	whatStageStart  = "start_stage"
	whatStageFinish = "finish_stage"
	whatAttempt     = "put_attempt"
	whatHandle      = "set_handle"
	whatStatus      = "set_status"
	whatEvents      = "append_events"
	whatKey         = "put_key"
	whatAudit       = "audit"
)
