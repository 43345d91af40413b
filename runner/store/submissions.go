package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Submission says that a run was handed to a queue, which drives it. Whether it
// still waits there follows from the run's state alone, so that the two never
// disagree.
type Submission struct {
	Seq   int64  `json:"seq"` // place in the order of all submissions
	RunID string `json:"run_id"`
	Queue string `json:"queue"`
	By    string `json:"by"` // who submitted it
	// AutoApprove is who approved it in advance, until that is done; empty:
	// somebody has to.
	AutoApprove string    `json:"auto_approve,omitempty"`
	Reserved    float64   `json:"reserved_gpu_hours"` // set aside with the approval
	Created     time.Time `json:"created"`
}

func (s *Store) submit(ctx context.Context, tx *sql.Tx, runID string, n *Submission) error {
	if n == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO submissions (run_id, queue, submitter, auto_approve, created_at) VALUES (?, ?, ?, ?, ?)",
		runID, n.Queue, n.By, n.AutoApprove, s.now())
	return err
}

const submissionColumns = "s.seq, s.run_id, s.queue, s.submitter, s.auto_approve, s.reserved, s.created_at"

func scanSubmission(row interface{ Scan(...any) error }, more ...any) (Submission, error) {
	var n Submission
	var created int64
	err := row.Scan(append([]any{&n.Seq, &n.RunID, &n.Queue, &n.By, &n.AutoApprove, &n.Reserved, &created}, more...)...)
	n.Created = fromMicro(created)
	return n, err
}

// Submission returns how a run was submitted; its error wraps ErrNotFound for
// one that was not.
func (s *Store) Submission(ctx context.Context, runID string) (Submission, error) {
	n, err := scanSubmission(s.db.QueryRowContext(ctx, "SELECT "+submissionColumns+" FROM submissions s WHERE s.run_id = ?", runID))
	return n, s.readError("read submission of "+runID, err)
}

// Waiting is a submission that a queue has to drive.
type Waiting struct {
	Submission
	State    State
	Approved bool
}

// Waiting returns the submissions whose runs can be driven on, in the order in
// which they were made, at most limit of them.
func (s *Store) Waiting(ctx context.Context, limit int) (_ []Waiting, err error) {
	// Two queries, so that each walks an index of what is open: plans that wait
	// for a person may be many.
	columns := "SELECT " + submissionColumns + ", r.state, r.approved_by <> ''"
	rows, err := s.db.QueryContext(ctx, columns+` FROM runs r JOIN submissions s ON s.run_id = r.id
			WHERE r.state IN ('created','planning','approved','running','interrupted')
		UNION ALL `+columns+` FROM submissions s JOIN runs r ON r.id = s.run_id
			WHERE s.auto_approve <> '' AND r.state = 'planned'
		ORDER BY 1 LIMIT ?`, limit)
	if err != nil {
		return nil, s.readError("read queue", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []Waiting
	for rows.Next() {
		var w Waiting
		if w.Submission, err = scanSubmission(rows, &w.State, &w.Approved); err != nil {
			return nil, s.readError("read queue", err)
		}
		out = append(out, w)
	}
	return out, s.readError("read queue", rows.Err())
}

// Reserve approves a run of the submitter and sets GPU-hours aside for it, in
// one step with the question whether limit, when positive, allows them: what
// the submitter's runs used since the moment given, and what is set aside for
// those that are not finished. It returns what is in use beside this run.
func (s *Store) Reserve(ctx context.Context, runID, by string, gpuHours, limit float64, since time.Time, events ...Event) (used float64, err error) {
	err = s.write(ctx, whatApprove, func(tx *sql.Tx) error {
		r, err := scanRun(tx.QueryRowContext(ctx, "SELECT "+runColumns+" FROM runs WHERE id = ?", runID))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("run %s: %w", runID, ErrNotFound)
		case err != nil || r.ApprovedBy != "":
			return err
		case r.State.Final():
			return fmt.Errorf("run %s is %s: %w", runID, r.State, ErrTerminal)
		case r.PlanHash == "":
			return fmt.Errorf("run %s has no plan yet", runID)
		}
		if limit > 0 {
			if used, err = gpuHoursOf(ctx, tx, runID, since); err != nil {
				return err
			}
			if used+gpuHours > limit {
				return ErrOverLimit
			}
		}
		if _, err := tx.ExecContext(ctx, "UPDATE submissions SET reserved = ?, auto_approve = '' WHERE run_id = ?", gpuHours, runID); err != nil {
			return err
		}
		return s.updateTx(ctx, tx, runID, events, "state = ?, approved_by = ?, approved_at = ?", Approved, by, s.now())
	})
	return used, err
}

// ErrOverLimit says that an approval would go over its limit.
var ErrOverLimit = errors.New("over the limit of GPU-hours")

// gpuHoursOf is what the submitter of a run uses beside it.
func gpuHoursOf(ctx context.Context, tx querier, runID string, since time.Time) (used float64, err error) {
	err = tx.QueryRowContext(ctx, usedSQL("(SELECT submitter FROM submissions WHERE run_id = ?1)", "o.run_id <> ?1"), runID, since.UnixMicro()).Scan(&used)
	return used, err
}

func usedSQL(submitter, where string) string {
	return `SELECT COALESCE(SUM(CASE WHEN r.state IN ('done','cancelled') THEN spent ELSE MAX(spent, reserved) END), 0) FROM (
		SELECT o.run_id, o.reserved, COALESCE((SELECT SUM(a.gpu_hours) FROM attempts a WHERE a.run_id = o.run_id AND a.updated_at >= ?2), 0) AS spent
		FROM submissions o WHERE o.submitter = ` + submitter + ` AND ` + where + `) JOIN runs r ON r.id = run_id`
}

// GPUHours returns what a submitter's runs used since the moment given, with
// what is set aside for those that are not finished.
func (s *Store) GPUHours(ctx context.Context, by string, since time.Time) (used float64, err error) {
	err = s.db.QueryRowContext(ctx, usedSQL("?1", "1"), by, since.UnixMicro()).Scan(&used)
	return used, s.readError("read use of "+by, err)
}

// Counts returns how many runs there are in each state.
func (s *Store) Counts(ctx context.Context) (_ map[State]int64, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT state, COUNT(*) FROM runs GROUP BY state")
	if err != nil {
		return nil, s.readError("count runs", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out := map[State]int64{}
	for rows.Next() {
		var st State
		var n int64
		if err := rows.Scan(&st, &n); err != nil {
			return nil, s.readError("count runs", err)
		}
		out[st] = n
	}
	return out, s.readError("count runs", rows.Err())
}
