package kueue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
)

// Held is an attempt whose Job the namespace's ResourceQuota has no room for.
// It is submitted as soon as there is: whoever observes it tries.
const Held State = "held"

// fileHeld says since when an attempt is held, and by what.
const fileHeld = "held.json"

type held struct {
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
}

// overQuota is what the API server says where a ResourceQuota is used up, "" for
// other errors.
func overQuota(err error) string {
	if err == nil || !apierrors.IsForbidden(unwrapped(err)) || !strings.Contains(err.Error(), "exceeded quota") {
		return ""
	}
	_, what, _ := strings.Cut(err.Error(), "exceeded quota: ")
	return sentence(what)
}

// gate lets one held attempt at a time try, and none for a while after one that
// was refused.
type gate struct {
	mu   sync.Mutex
	next time.Time
}

// heldEvery is the time between two tries while the quota is used up.
const heldEvery = 5 * time.Second

func (g *gate) enter(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.next) {
		return false
	}
	g.next = now.Add(heldEvery)
	return true
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next = time.Time{}
}

// hold notes that an attempt waits for the quota.
func (e *Executor) hold(at pod.Folder, why string) error {
	h, _ := heldAt(at)
	if h.Message == why {
		return nil
	}
	if h.Since.IsZero() {
		h.Since = e.cfg.Now().UTC()
	}
	h.Message = why
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode %s: %w", fileHeld, err)
	}
	return atomicfile.Write(filepath.Join(string(at), fileHeld), b, atomicfile.Options{})
}

func heldAt(at pod.Folder) (h held, ok bool) {
	b, err := os.ReadFile(filepath.Join(string(at), fileHeld))
	return h, err == nil && json.Unmarshal(b, &h) == nil
}

// release tries to submit an attempt that is held. ok is true when its Job is
// there.
func (e *Executor) release(ctx context.Context, at pod.Folder, rec pod.Record) (st runner.Status, ok bool, err error) {
	h, _ := heldAt(at)
	if !at.Cancelled() && e.gate.enter(e.cfg.Now()) {
		job, err := e.job(at, rec.Attempt)
		if err != nil {
			return st, false, err
		}
		err = e.create(ctx, at, job)
		why := overQuota(err)
		switch {
		case err == nil:
			e.gate.open()
			if at.Cancelled() { // while it was made
				_, err = e.remove(ctx, job.Name)
			}
			return st, err == nil, err
		case why == "":
			return st, false, e.c.explain("submit "+rec.Key, err)
		}
		h.Message = why
		if err := e.hold(at, why); err != nil {
			return st, false, err
		}
	}
	return runner.Status{Phase: runner.Pending, Reason: runner.Reason(Held), Since: h.Since, Message: "waits outside of its queue: the namespace's ResourceQuota is used up (" + h.Message + "); it is submitted when there is room"}, false, nil
}
