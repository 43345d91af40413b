package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

func submit(t testing.TB, s *Store, id, by, auto string) {
	t.Helper()
	_, created, err := s.CreateRun(t.Context(), NewRun{ID: id, Target: id, Request: []byte("{}"),
		Submission: &Submission{Queue: "local", By: by, AutoApprove: auto}}, Event{Kind: "run.created"})
	if err != nil || !created {
		t.Fatalf("CreateRun(%s) = %v, %v", id, created, err)
	}
}

func waiting(t testing.TB, s *Store) (ids string) {
	t.Helper()
	list, err := s.Waiting(t.Context(), 100)
	must(t, err)
	for _, w := range list {
		ids += w.RunID
	}
	return ids
}

func TestAQueueFollowsTheStates(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	for _, id := range []string{"C", "A", "B"} {
		submit(t, s, id, "k1", "")
	}
	create(t, s, "Z") // nobody's
	if got := waiting(t, s); got != "CAB" {
		t.Errorf("waiting = %s, want the order of submission", got)
	}
	must(t, s.SavePlan(ctx, "A", []byte(`{"target":{"kind":"arxiv","id":"2604.08075"},"paper":{"title":"T"}}`), "h"))
	must(t, s.SetState(ctx, "B", Failed, "broken"))
	if got := waiting(t, s); got != "C" {
		t.Errorf("waiting = %s: a plan to approve and a failure wait for a person", got)
	}
	must(t, s.Approve(ctx, "A", "me"))
	must(t, s.Finish(ctx, "C", Cancelled, "", []byte("{}")))
	if got := waiting(t, s); got != "A" {
		t.Errorf("waiting = %s after approval and cancel", got)
	}
	submit(t, s, "D", "k1", "k1")
	must(t, s.SavePlan(ctx, "D", []byte(`{}`), "h"))
	if got := waiting(t, s); got != "AD" {
		t.Errorf("waiting = %s: what was approved in advance goes on", got)
	}
	r, err := s.Run(ctx, "A")
	if err != nil || r.Subject != "arxiv:2604.08075" || r.Title != "T" {
		t.Errorf("run = %+v, %v", r, err)
	}
	if list, err := s.List(ctx, Filter{Subject: "arxiv:2604.08075"}); err != nil || len(list) != 1 || list[0].ID != "A" {
		t.Errorf("by subject: %+v, %v", list, err)
	}
	if n, err := s.Submission(ctx, "Z"); !errors.Is(err, ErrNotFound) {
		t.Errorf("submission of a run that was not submitted: %+v, %v", n, err)
	}
}

func TestReserveHoldsTheLimit(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	since := time.Now().Add(-24 * time.Hour)
	for _, id := range []string{"A", "B", "C"} {
		submit(t, s, id, "k", "")
		must(t, s.SavePlan(ctx, id, []byte("{}"), "h"))
	}
	if used, err := s.Reserve(ctx, "A", "k", 6, 10, since, Event{Kind: "run.approved"}); err != nil || used != 0 {
		t.Fatalf("first: %v, %v", used, err)
	}
	if used, err := s.Reserve(ctx, "B", "k", 6, 10, since); !errors.Is(err, ErrOverLimit) || used != 6 {
		t.Fatalf("second: %v, %v; want it refused with 6 in use", used, err)
	}
	if r, _ := s.Run(ctx, "B"); r.ApprovedBy != "" {
		t.Error("a refused run was approved")
	}
	must(t, s.PutAttempt(ctx, Attempt{Key: "a", RunID: "A"}))
	must(t, s.SetStatus(ctx, "A", "a", nil, true, Spend{GPUHours: 1}))
	must(t, s.Finish(ctx, "A", Done, "aligned", []byte("{}")))
	if used, err := s.GPUHours(ctx, "k", since); err != nil || used != 1 {
		t.Errorf("used = %v, %v; what was set aside for a finished run comes back", used, err)
	}
	if used, err := s.GPUHours(ctx, "k", time.Now().Add(time.Hour)); err != nil || used != 0 {
		t.Errorf("used = %v, %v after the window", used, err)
	}
	if _, err := s.Reserve(ctx, "B", "k", 6, 10, since); err != nil {
		t.Error(err)
	}
	if _, err := s.Reserve(ctx, "B", "k", 600, 10, since); err != nil {
		t.Errorf("approving again: %v", err)
	}
	if _, err := s.Reserve(ctx, "C", "k", 100, 0, since); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestKeysAndAudit(t *testing.T) {
	s := open(t, Config{})
	ctx := t.Context()
	exp := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	must(t, s.AddKey(ctx, Key{ID: "a", Hash: []byte("ha"), Grant: []byte(`{"name":"x"}`), Expires: exp}, Audit{Actor: "local", Action: "key.create", Subject: "a"}))
	if err := s.AddKey(ctx, Key{ID: "b", Hash: []byte("ha"), Grant: []byte(`{}`)}, Audit{}); err == nil {
		t.Error("two keys with one secret")
	}
	must(t, s.RevokeKey(ctx, "a", Audit{Actor: "local", Action: "key.revoke", Subject: "a"}))
	k, err := s.Key(ctx, "a")
	if err != nil || k.Revoked.IsZero() || !k.Expires.Equal(exp) || string(k.Grant) != `{"name":"x"}` {
		t.Errorf("key = %+v, %v", k, err)
	}
	if err := s.RevokeKey(ctx, "nobody", Audit{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("revoking a key that is not there: %v", err)
	}
	must(t, s.Audit(ctx, Audit{Actor: "a", Action: "run.submit", Subject: "R"}))
	all, err := s.AuditLog(ctx, "", 0, 0)
	if err != nil || len(all) != 3 || all[0].Action != "run.submit" {
		t.Errorf("audit = %+v, %v", all, err)
	}
	if of, _ := s.AuditLog(ctx, "a", all[0].Seq, 1); len(of) != 1 || of[0].Action != "key.revoke" {
		t.Errorf("audit of a = %+v", of)
	}
	for _, q := range []string{"UPDATE audit SET actor = 'x'", "DELETE FROM audit"} {
		if _, err := s.db.ExecContext(ctx, q); err == nil {
			t.Errorf("the database allowed %q", q)
		}
	}
}

// TestOlderFileIsBroughtUpToDate opens a file of the version before the
// submissions, and finds its runs by what their plans are about.
func TestOlderFileIsBroughtUpToDate(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(ctx, path, Config{})
	must(t, err)
	for _, q := range []string{
		"DROP TABLE audit; DROP TABLE keys; DROP TABLE submissions; DROP INDEX runs_by_subject; ALTER TABLE runs DROP COLUMN subject; ALTER TABLE runs DROP COLUMN title",
		fmt.Sprintf("PRAGMA user_version = %d", 1),
		"INSERT INTO runs (id, created_at, updated_at, target, state) VALUES ('A', 1, 1, 't', 'planned'), ('B', 1, 1, 't', 'created')",
		`INSERT INTO documents VALUES ('A', 'plan', CAST('{"target":{"kind":"hf_model","id":"a/b"},"model":{"id":"a/b"}}' AS BLOB))`,
	} {
		if _, err := s.db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	must(t, s.Close())
	s, err = Open(ctx, path, Config{})
	must(t, err)
	defer s.Close()
	if r, err := s.Run(ctx, "A"); err != nil || r.Subject != "hf_model:a/b" || r.Title != "a/b" {
		t.Errorf("run = %+v, %v", r, err)
	}
	if r, err := s.Run(ctx, "B"); err != nil || r.Subject != "" {
		t.Errorf("run = %+v, %v", r, err)
	}
}
