package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"
)

// Event is one line of a run's history. On writing, Seq, RunID and a zero
// Time are filled in by the store.
type Event struct {
	Seq   int64
	RunID string
	Stage string
	Time  time.Time
	Kind  string
	Data  json.RawMessage
}

func (s *Store) insertEvents(ctx context.Context, tx *sql.Tx, runID string, events []Event) error {
	for _, e := range events {
		t := s.now()
		if !e.Time.IsZero() {
			t = e.Time.UnixMicro()
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO events (run_id, seq, time, stage, kind, data)
			SELECT ?1, COALESCE(MAX(seq), 0) + 1, ?2, ?3, ?4, ?5 FROM events WHERE run_id = ?1`, runID, t, e.Stage, e.Kind, []byte(e.Data))
		if err != nil {
			return err
		}
	}
	return nil
}

// Append adds events that go with no change of state.
func (s *Store) Append(ctx context.Context, runID string, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	return s.write(ctx, whatEvents, func(tx *sql.Tx) error { return s.insertEvents(ctx, tx, runID, events) })
}

// Events returns the events of a run after the given sequence number, oldest
// first, at most limit of them (0 means 1,000).
func (s *Store) Events(ctx context.Context, runID string, afterSeq int64, limit int) ([]Event, error) {
	if limit <= 0 {
		limit = 1000
	}
	rows, err := s.db.QueryContext(ctx, "SELECT seq, time, stage, kind, data FROM events WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?",
		runID, afterSeq, limit)
	if err != nil {
		return nil, s.readError("read events", err)
	}
	out, err := scanEvents(rows, runID)
	return out, s.readError("read events", err)
}

func scanEvents(rows *sql.Rows, runID string) (out []Event, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		e := Event{RunID: runID}
		var t int64
		var data []byte
		if err := rows.Scan(&e.Seq, &t, &e.Stage, &e.Kind, &data); err != nil {
			return nil, err
		}
		e.Time, e.Data = fromMicro(t), data
		out = append(out, e)
	}
	return out, rows.Err()
}

// The intervals at which Follow looks for what other processes wrote; what
// this process wrote it sees at once.
const (
	pollMin = 50 * time.Millisecond
	pollMax = 500 * time.Millisecond
)

// Follow calls fn for every event after the given sequence number, those there
// are and those to come, until fn returns an error, the context ends, or stop
// says so of the run once all its events have been handed over. A nil stop
// ends with the run's final state.
func (s *Store) Follow(ctx context.Context, runID string, afterSeq int64, stop func(Run) bool, fn func(Event) error) error {
	if stop == nil {
		stop = func(r Run) bool { return r.State.Final() }
	}
	wait := pollMin
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		// The run is read before its events: what it says then is covered by
		// the events that follow.
		run, err := s.Run(ctx, runID)
		if err != nil {
			return err
		}
		n, err := s.drain(ctx, runID, &afterSeq, fn)
		if err != nil {
			return err
		}
		if stop(run) {
			return nil
		}
		if wait = min(wait*2, pollMax); n > 0 {
			wait = pollMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (s *Store) drain(ctx context.Context, runID string, after *int64, fn func(Event) error) (n int, err error) {
	const page = 500
	for {
		events, err := s.Events(ctx, runID, *after, page)
		if err != nil {
			return n, err
		}
		for _, e := range events {
			if err := fn(e); err != nil {
				return n, err
			}
			*after = e.Seq
			n++
		}
		if len(events) < page {
			return n, nil
		}
	}
}

// Check verifies the file and the promises of this package, and returns what
// is broken in words: damaged pages, gaps in the events, rows without their
// run, runs that are final with work still open.
func (s *Store) Check(ctx context.Context) (problems []string, err error) {
	for _, q := range []string{
		"SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
		"SELECT 'row of ' || \"table\" || ' without its ' || parent FROM pragma_foreign_key_check",
		`SELECT 'events of run ' || run_id || ' have gaps' FROM events GROUP BY run_id HAVING MAX(seq) <> COUNT(*) OR MIN(seq) <> 1`,
		`SELECT 'run ' || id || ' is ' || state || ' without an outcome' FROM runs WHERE state IN ('done','cancelled')
			AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.run_id = id AND d.name = 'outcome')`,
		`SELECT 'run ' || id || ' is ' || state || ' with the open attempt ' || key FROM runs JOIN attempts ON run_id = id
			WHERE state IN ('done','cancelled') AND final = 0`,
		`SELECT 'run ' || id || ' is done with the open stage ' || stage FROM runs JOIN stages ON run_id = id
			WHERE runs.state = 'done' AND stages.state = 'started'`,
		`SELECT 'run ' || run_id || ' has ' || COUNT(*) || ' events ' || kind FROM events
			WHERE kind IN ('run.created','run.approved','run.finished','run.cancelled') GROUP BY run_id, kind HAVING COUNT(*) > 1`,
	} {
		rows, err := s.db.QueryContext(ctx, q)
		if err != nil {
			return nil, s.readError("check", err)
		}
		found, err := scanStrings(rows)
		if err != nil {
			return nil, s.readError("check", err)
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

func scanStrings(rows *sql.Rows) (out []string, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Story returns the newest events of a run that tell where it stands, oldest
// first, at most limit of them: all kinds but those that are left out.
func (s *Store) Story(ctx context.Context, runID string, limit int, without ...string) ([]Event, error) {
	q, args := "SELECT seq, time, stage, kind, data FROM events WHERE run_id = ?", []any{runID}
	for _, k := range without {
		q, args = q+" AND kind <> ?", append(args, k)
	}
	rows, err := s.db.QueryContext(ctx, "SELECT * FROM ("+q+" ORDER BY seq DESC LIMIT ?) ORDER BY seq", append(args, limit)...)
	if err != nil {
		return nil, s.readError("read events", err)
	}
	out, err := scanEvents(rows, runID)
	return out, s.readError("read events", err)
}

// LastSeq is the number of a run's newest event, 0 when it has none.
func (s *Store) LastSeq(ctx context.Context, runID string) (seq int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(seq), 0) FROM events WHERE run_id = ?", runID).Scan(&seq)
	return seq, s.readError("read events", err)
}
