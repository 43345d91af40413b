package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"
)

// StageState is where a stage of a run stands.
type StageState string

// The states of a stage. Finished and Skipped are final.
const (
	StageStarted  StageState = "started"
	StageFinished StageState = "finished"
	StageSkipped  StageState = "skipped"
)

// Stage is one stage of one run.
type Stage struct {
	Stage    string          `json:"stage"`
	State    StageState      `json:"state"`
	Attempt  int             `json:"attempt"` // how often it was started, from 1
	Output   json.RawMessage `json:"output,omitempty"`
	Started  time.Time       `json:"started"`
	Finished time.Time       `json:"finished,omitzero"`
}

// StartStage marks a stage as started, once more if it was started before,
// and returns which time this is, from 1. A finished stage cannot be started.
func (s *Store) StartStage(ctx context.Context, runID, stage string, events ...Event) (attempt int, err error) {
	err = s.write(ctx, whatStageStart, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `INSERT INTO stages (run_id, stage, state, attempt, started_at) VALUES (?, ?, 'started', 1, ?)
			ON CONFLICT (run_id, stage) DO UPDATE SET state = 'started', attempt = attempt + 1, started_at = excluded.started_at
			RETURNING attempt`, runID, stage, s.now()).Scan(&attempt)
		if err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, runID, events)
	})
	return attempt, err
}

// FinishStage stores what a stage produced and makes it final.
func (s *Store) FinishStage(ctx context.Context, runID, stage string, state StageState, output json.RawMessage, events ...Event) error {
	return s.write(ctx, whatStageFinish, func(tx *sql.Tx) error {
		now := s.now()
		_, err := tx.ExecContext(ctx, `INSERT INTO stages (run_id, stage, state, attempt, output, started_at, finished_at)
			VALUES (?, ?, ?, 1, ?, ?, ?)
			ON CONFLICT (run_id, stage) DO UPDATE SET state = excluded.state, output = excluded.output, finished_at = excluded.finished_at`,
			runID, stage, state, []byte(output), now, now)
		if err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, runID, events)
	})
}

// Stages returns the stages of a run that were started, by name.
func (s *Store) Stages(ctx context.Context, runID string) (map[string]Stage, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT stage, state, attempt, output, started_at, finished_at FROM stages WHERE run_id = ?", runID)
	if err != nil {
		return nil, s.readError("read stages", err)
	}
	out, err := scanStages(rows)
	return out, s.readError("read stages", err)
}

func scanStages(rows *sql.Rows) (out map[string]Stage, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	out = map[string]Stage{}
	for rows.Next() {
		var st Stage
		var started int64
		var finished sql.NullInt64
		var output []byte
		if err := rows.Scan(&st.Stage, &st.State, &st.Attempt, &output, &started, &finished); err != nil {
			return nil, err
		}
		st.Output, st.Started = output, fromMicro(started)
		if finished.Valid {
			st.Finished = fromMicro(finished.Int64)
		}
		out[st.Stage] = st
	}
	return out, rows.Err()
}

// Attempt is one try of one piece of work, as the store keeps it.
type Attempt struct {
	Key      string          `json:"key"`
	RunID    string          `json:"run_id"`
	Stage    string          `json:"stage"`
	Arm      string          `json:"arm"`
	Shard    int             `json:"shard"`
	N        int             `json:"n"`
	Spec     json.RawMessage `json:"spec,omitempty"`   // what was asked for
	Handle   string          `json:"handle,omitempty"` // empty between the intention and the submission
	Final    bool            `json:"final"`
	Status   json.RawMessage `json:"status,omitempty"` // a runner.Status
	Spend    Spend           `json:"spend"`
	Created  time.Time       `json:"created"`
	Observed time.Time       `json:"observed"` // last change
}

// Spend is what an attempt has used so far, measured.
type Spend struct {
	WallSeconds float64 `json:"wall_seconds"`
	GPUHours    float64 `json:"gpu_hours"`
	USD         float64 `json:"usd"`
}

// PutAttempt records the intention to submit, before anything is submitted.
// An attempt that is known already is left as it is.
func (s *Store) PutAttempt(ctx context.Context, a Attempt, events ...Event) error {
	return s.write(ctx, whatAttempt, func(tx *sql.Tx) error {
		now := s.now()
		res, err := tx.ExecContext(ctx, `INSERT INTO attempts (key, run_id, stage, arm, shard, n, spec, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, a.Key, a.RunID, a.Stage, a.Arm, a.Shard, a.N, []byte(a.Spec), now, now)
		if err != nil {
			return err
		}
		if k, err := res.RowsAffected(); err != nil || k == 0 {
			return err
		}
		return s.insertEvents(ctx, tx, a.RunID, events)
	})
}

// SetHandle records what the executor answered to the submission.
func (s *Store) SetHandle(ctx context.Context, key, handle string) error {
	return s.write(ctx, whatHandle, func(tx *sql.Tx) error {
		return one(tx.ExecContext(ctx, "UPDATE attempts SET handle = ?, updated_at = ? WHERE key = ?", handle, s.now(), key))
	})
}

// SetStatus records what was last observed and spent; final ends the attempt.
func (s *Store) SetStatus(ctx context.Context, runID, key string, status json.RawMessage, final bool, spend Spend, events ...Event) error {
	return s.write(ctx, whatStatus, func(tx *sql.Tx) error {
		err := one(tx.ExecContext(ctx, `UPDATE attempts SET status = ?, final = ?, wall_s = ?, gpu_hours = ?, usd = ?, updated_at = ? WHERE key = ?`,
			[]byte(status), final, spend.WallSeconds, spend.GPUHours, spend.USD, s.now(), key))
		if err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, runID, events)
	})
}

// one turns "nothing was changed" into ErrNotFound.
func one(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNotFound)
	}
	return nil
}

// Attempts returns all attempts of a run in the order in which they were made.
func (s *Store) Attempts(ctx context.Context, runID string) ([]Attempt, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT key, run_id, stage, arm, shard, n, spec, handle, final, status, wall_s, gpu_hours, usd, created_at, updated_at
		FROM attempts WHERE run_id = ? ORDER BY created_at, rowid`, runID)
	if err != nil {
		return nil, s.readError("read attempts", err)
	}
	out, err := scanAttempts(rows)
	return out, s.readError("read attempts", err)
}

func scanAttempts(rows *sql.Rows) (out []Attempt, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a Attempt
		var created, updated int64
		var spec, status []byte
		if err := rows.Scan(&a.Key, &a.RunID, &a.Stage, &a.Arm, &a.Shard, &a.N, &spec, &a.Handle, &a.Final, &status,
			&a.Spend.WallSeconds, &a.Spend.GPUHours, &a.Spend.USD, &created, &updated); err != nil {
			return nil, err
		}
		a.Spec, a.Status, a.Created, a.Observed = spec, status, fromMicro(created), fromMicro(updated)
		out = append(out, a)
	}
	return out, rows.Err()
}
