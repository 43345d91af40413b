package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is where a run stands.
type State string

// The states of a run. Done and Cancelled are final; Interrupted and Failed
// say why nobody drives the run, and it can be taken up again from both.
const (
	Created     State = "created"
	Planning    State = "planning"
	Planned     State = "planned" // waits for approval
	Approved    State = "approved"
	Running     State = "running"
	Interrupted State = "interrupted"
	Failed      State = "failed" // Run.Error says what went wrong
	Done        State = "done"
	Cancelled   State = "cancelled"
)

// Final reports whether the state can no longer change.
func (s State) Final() bool { return s == Done || s == Cancelled }

// Run is one row of the list of runs.
type Run struct {
	ID              string    `json:"id"`
	Created         time.Time `json:"created"`
	Updated         time.Time `json:"updated"`
	Finished        time.Time `json:"finished,omitzero"`
	Target          string    `json:"target"`
	IdempotencyKey  string    `json:"idempotency_key,omitempty"`
	State           State     `json:"state"`
	PlanHash        string    `json:"plan_hash,omitempty"`
	ApprovedBy      string    `json:"approved_by,omitempty"`
	Approved        time.Time `json:"approved,omitzero"`
	CancelRequested string    `json:"cancel_requested,omitempty"` // who asked; empty when nobody did
	Verdict         string    `json:"verdict,omitempty"`
	Error           string    `json:"error,omitempty"`   // why the state is Failed or Interrupted
	Subject         string    `json:"subject,omitempty"` // of the plan: kind and id of its target, "arxiv:2604.08075"
	Title           string    `json:"title,omitempty"`   // of the plan's paper, or the model's name
}

const runColumns = `id, created_at, updated_at, finished_at, target, idempotency_key, state, plan_hash,
  approved_by, approved_at, cancel_requested, verdict, error, subject, title`

func scanRun(row interface{ Scan(...any) error }) (Run, error) {
	var r Run
	var created, updated int64
	var finished, approved sql.NullInt64
	var key sql.NullString
	err := row.Scan(&r.ID, &created, &updated, &finished, &r.Target, &key, &r.State, &r.PlanHash,
		&r.ApprovedBy, &approved, &r.CancelRequested, &r.Verdict, &r.Error, &r.Subject, &r.Title)
	r.Created, r.Updated, r.IdempotencyKey = fromMicro(created), fromMicro(updated), key.String
	if finished.Valid {
		r.Finished = fromMicro(finished.Int64)
	}
	if approved.Valid {
		r.Approved = fromMicro(approved.Int64)
	}
	return r, err
}

func fromMicro(us int64) time.Time { return time.UnixMicro(us).UTC() }

func (s *Store) now() int64 { return s.cfg.Now().UnixMicro() }

// NewRun is what CreateRun stores.
type NewRun struct {
	ID             string
	Target         string
	IdempotencyKey string // may be empty
	Request        json.RawMessage
	Submission     *Submission // nil: whoever makes the run drives it
}

// CreateRun stores a run with its first events. When a run with the same id or
// idempotency key exists, that one is returned instead and nothing is
// written.
func (s *Store) CreateRun(ctx context.Context, n NewRun, events ...Event) (run Run, created bool, err error) {
	err = s.write(ctx, whatCreate, func(tx *sql.Tx) error {
		now := s.now()
		res, err := tx.ExecContext(ctx, `INSERT INTO runs (id, created_at, updated_at, target, idempotency_key, state)
			VALUES (?, ?, ?, ?, NULLIF(?, ''), 'created') ON CONFLICT DO NOTHING`, n.ID, now, now, n.Target, n.IdempotencyKey)
		if err != nil {
			return err
		}
		if k, err := res.RowsAffected(); err != nil || k == 0 {
			run, err = scanRun(tx.QueryRowContext(ctx, "SELECT "+runColumns+
				" FROM runs WHERE id = ? OR (idempotency_key = ? AND ? <> '') LIMIT 1", n.ID, n.IdempotencyKey, n.IdempotencyKey))
			return err
		}
		created = true
		if err := putDocument(ctx, tx, n.ID, "request", n.Request); err != nil {
			return err
		}
		if err := s.submit(ctx, tx, n.ID, n.Submission); err != nil {
			return err
		}
		if err := s.insertEvents(ctx, tx, n.ID, events); err != nil {
			return err
		}
		run, err = scanRun(tx.QueryRowContext(ctx, "SELECT "+runColumns+" FROM runs WHERE id = ?", n.ID))
		return err
	})
	return run, created, err
}

// putDocument stores a document once; the same bytes again are fine, others
// are refused by the database.
func putDocument(ctx context.Context, tx *sql.Tx, id, name string, body []byte) error {
	var old []byte
	err := tx.QueryRowContext(ctx, "SELECT body FROM documents WHERE run_id = ? AND name = ?", id, name).Scan(&old)
	switch {
	case err == nil && bytes.Equal(old, body):
		return nil
	case err == nil:
		return fmt.Errorf("%w: run %s has another %s", ErrTerminal, id, name)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if body == nil {
		body = []byte{}
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO documents (run_id, name, body) VALUES (?, ?, ?)", id, name, body)
	return err
}

// Run returns one run.
func (s *Store) Run(ctx context.Context, id string) (Run, error) {
	r, err := scanRun(s.db.QueryRowContext(ctx, "SELECT "+runColumns+" FROM runs WHERE id = ?", id))
	return r, s.readError("read run "+id, err)
}

func (s *Store) readError(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return fmt.Errorf("store: %s: %w", what, s.fileError(err))
}

// Find returns the run whose id begins with the prefix, in either case, when
// there is exactly one. Its error wraps ErrNotFound when there is none.
func (s *Store) Find(ctx context.Context, prefix string) (Run, error) {
	p := strings.ToUpper(prefix)
	rows, err := s.db.QueryContext(ctx, "SELECT "+runColumns+" FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", p, p+"\x7f")
	if err != nil {
		return Run{}, s.readError("find run "+prefix, err)
	}
	found, err := collectRuns(rows)
	switch {
	case err != nil:
		return Run{}, s.readError("find run "+prefix, err)
	case len(found) == 0 || prefix == "":
		return Run{}, s.readError("find run "+prefix, ErrNotFound)
	case len(found) > 1 && found[0].ID != p:
		return Run{}, s.readError("find run "+prefix, fmt.Errorf("%w: several runs begin so; give more of the id", ErrNotFound))
	}
	return found[0], nil
}

// Document returns "request", "plan" or "outcome" of a run.
func (s *Store) Document(ctx context.Context, id, name string) (json.RawMessage, error) {
	var b []byte
	err := s.db.QueryRowContext(ctx, "SELECT body FROM documents WHERE run_id = ? AND name = ?", id, name).Scan(&b)
	return b, s.readError("read "+name+" of run "+id, err)
}

// Filter chooses runs for a list, newest first.
type Filter struct {
	States []State // empty means all
	Target string  // part of the target; empty means all
	// Subject is what the plan is about, exactly; empty means all.
	Subject string
	Kind    string // of what the plan is about, such as hf_model; empty means all
	Before  *Run   // only runs after this one in the list: the last of the page before
	Limit   int    // 0 means 100
}

// List returns the newest runs that the filter lets through. Its cost depends
// on the limit and not on how many runs there are, except with Target, which
// looks at runs until it has found enough.
func (s *Store) List(ctx context.Context, f Filter) ([]Run, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	states := f.States
	if len(states) == 0 {
		states = []State{""}
	}
	// One query per state: each walks its index in order and stops at the
	// limit, which an IN list with ORDER BY would not.
	var out []Run
	for _, st := range states {
		q, args := "SELECT "+runColumns+" FROM runs WHERE 1", []any(nil)
		if st != "" {
			q, args = q+" AND state = ?", append(args, st)
		}
		if f.Subject != "" {
			q, args = q+" AND subject = ? AND subject <> ''", append(args, f.Subject)
		}
		if f.Kind != "" { // a ';' follows the ':' that ends the kind
			q, args = q+" AND subject >= ? AND subject < ? AND subject <> ''", append(args, f.Kind+":", f.Kind+";")
		}
		if f.Before != nil {
			q, args = q+" AND (created_at, id) < (?, ?)", append(args, f.Before.Created.UnixMicro(), f.Before.ID)
		}
		if f.Target != "" {
			q, args = q+" AND instr(lower(target), lower(?)) > 0", append(args, f.Target)
		}
		rows, err := s.db.QueryContext(ctx, q+" ORDER BY created_at DESC, id DESC LIMIT ?", append(args, f.Limit)...)
		if err != nil {
			return nil, s.readError("list runs", err)
		}
		page, err := collectRuns(rows)
		if err != nil {
			return nil, s.readError("list runs", err)
		}
		out = append(out, page...)
	}
	slices.SortFunc(out, func(a, b Run) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return out[:min(len(out), f.Limit)], nil
}

func collectRuns(rows *sql.Rows) (out []Run, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, err := scanRun(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// SetState moves a run to another state that is not final, with why it got
// there when that is worth a word.
func (s *Store) SetState(ctx context.Context, id string, to State, why string, events ...Event) error {
	return s.update(ctx, whatState, id, events, "state = ?, error = ?", to, why)
}

// SavePlan stores the plan and its hash and moves the run to Planned.
func (s *Store) SavePlan(ctx context.Context, id string, plan json.RawMessage, hash string, events ...Event) error {
	return s.write(ctx, whatPlan, func(tx *sql.Tx) error {
		if err := putDocument(ctx, tx, id, "plan", plan); err != nil {
			return err
		}
		text := string(plan)
		return s.updateTx(ctx, tx, id, events, "state = ?, plan_hash = ?, error = '', subject = "+subjectOf("?")+", title = "+titleOf("?"),
			Planned, hash, text, text, text, text)
	})
}

// Approve records who approved the plan. Only the first approval counts; a
// run without a plan cannot be approved.
func (s *Store) Approve(ctx context.Context, id, by string, events ...Event) error {
	return s.write(ctx, whatApprove, func(tx *sql.Tx) error {
		r, err := scanRun(tx.QueryRowContext(ctx, "SELECT "+runColumns+" FROM runs WHERE id = ?", id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("run %s: %w", id, ErrNotFound)
		case err != nil || r.ApprovedBy != "":
			return err
		case r.State.Final():
			return fmt.Errorf("run %s is %s: %w", id, r.State, ErrTerminal)
		case r.PlanHash == "":
			return fmt.Errorf("run %s has no plan yet", id)
		}
		return s.updateTx(ctx, tx, id, events, "state = ?, approved_by = ?, approved_at = ?", Approved, by, s.now())
	})
}

// RequestCancel records that someone wants the run cancelled; whoever drives
// it acts on that. A final run is left alone with ErrTerminal.
func (s *Store) RequestCancel(ctx context.Context, id, by string, events ...Event) error {
	return s.write(ctx, whatCancel, func(tx *sql.Tx) error {
		var st State
		err := tx.QueryRowContext(ctx, "SELECT state FROM runs WHERE id = ?", id).Scan(&st)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("run %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if st.Final() {
			return fmt.Errorf("run %s is %s: %w", id, st, ErrTerminal)
		}
		return s.updateTx(ctx, tx, id, events, "cancel_requested = ?", by)
	})
}

// Finish stores the outcome and moves the run to a final state. Finishing a
// run again in the same state changes nothing.
func (s *Store) Finish(ctx context.Context, id string, to State, verdict string, outcome json.RawMessage, events ...Event) error {
	if !to.Final() {
		return fmt.Errorf("store: finish run %s: %q is not a final state", id, to)
	}
	return s.write(ctx, whatFinish, func(tx *sql.Tx) error {
		var st State
		if err := tx.QueryRowContext(ctx, "SELECT state FROM runs WHERE id = ?", id).Scan(&st); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				err = ErrNotFound
			}
			return err
		}
		if st == to {
			return nil
		}
		if err := putDocument(ctx, tx, id, "outcome", outcome); err != nil {
			return err
		}
		return s.updateTx(ctx, tx, id, events, "state = ?, verdict = ?, error = '', finished_at = ?", to, verdict, s.now())
	})
}

// update changes columns of one run and appends the events that say so.
func (s *Store) update(ctx context.Context, what, id string, events []Event, set string, args ...any) error {
	return s.write(ctx, what, func(tx *sql.Tx) error { return s.updateTx(ctx, tx, id, events, set, args...) })
}

func (s *Store) updateTx(ctx context.Context, tx *sql.Tx, id string, events []Event, set string, args ...any) error {
	res, err := tx.ExecContext(ctx, "UPDATE runs SET "+set+", updated_at = ? WHERE id = ?", append(args, s.now(), id)...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("run %s: %w", id, ErrNotFound))
	}
	return s.insertEvents(ctx, tx, id, events)
}
