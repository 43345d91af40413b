package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/endpoint"
)

// Look is one observation of an arm's server.
type Look struct {
	Arm      string            `json:"arm"`
	Seq      int               `json:"seq"`    // of the arm, from 0
	Moment   string            `json:"moment"` // before, between or after the questions
	At       time.Time         `json:"observed_at"`
	Identity endpoint.Identity `json:"identity"`
	Change   endpoint.Change   `json:"change,omitzero"` // since the look before
	Void     bool              `json:"void,omitempty"`  // the server is not the one of the arm's first look
	Reason   string            `json:"reason,omitempty"`
}

func readLooks(dir string) (out []Look, err error) {
	err = lines(filepath.Join(dir, looksFile), func(line []byte) error {
		var k Look
		if err := json.Unmarshal(line, &k); err != nil {
			return nil //nolint:nilerr // a line that a crash cut, which appendTo ended
		}
		out = append(out, k)
		return nil
	})
	return out, err
}

// generation is how often a server was found to be another one. Each time begins
// a new journal, so that void answers can be asked for again.
func generation(looks []Look) (n int) {
	for _, k := range looks {
		if k.Void {
			n++
		}
	}
	return n
}

// valid says by arm and number of looks before the request whether the server was
// the arm's own before and after.
type valid map[string][]bool

func validity(looks []Look) valid {
	v := valid{}
	for _, k := range looks {
		v[k.Arm] = append(v[k.Arm], !k.Void)
	}
	return v
}

// valid reports whether an answer counts. Between two looks nobody knows when a
// server changed, so answers count only if both found the same one.
func (v valid) valid(r suites.Record) bool {
	looks := v[r.Arm]
	if r.Check < 1 || r.Check > len(looks) || !looks[r.Check-1] {
		return false
	}
	return r.Check == len(looks) || looks[r.Check]
}

// look observes an arm's server. A server that cannot be seen has not changed:
// that is nil, except at the beginning.
func (s *state) look(ctx context.Context, arm int, moment string) error {
	// One look at a time: its number is its place among those of the arm.
	s.looking.Lock()
	defer s.looking.Unlock()
	if s.void != nil {
		return s.void
	}
	a := &s.c.Arms[arm]
	id, err := a.Server.Identity(ctx)
	if err != nil {
		if moment == "between" || moment == "after" && ctx.Err() == nil {
			return nil
		}
		return err
	}
	k := Look{Arm: a.Name, Moment: moment, At: s.c.Now().UTC(), Identity: id}
	first, last := s.firstAndLast(a.Name)
	if first != nil {
		k.Seq = last.Seq + 1
		k.Change = id.Since(last.Identity)
		if since := id.Since(first.Identity); since.Material {
			k.Void, k.Reason = true, since.String()
		} else if k.Change.Changed() {
			k.Reason = k.Change.String()
		}
	}
	if err := s.addLook(k); err != nil {
		return err
	}
	if k.Void {
		s.void = &VoidError{a.Name, id.Since(first.Identity)}
		return s.void
	}
	return nil
}

func (s *state) firstAndLast(arm string) (first, last *Look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.looks {
		if k := &s.looks[i]; k.Arm == arm {
			if first == nil {
				first = k
			}
			last = k
		}
	}
	return first, last
}

func (s *state) addLook(k Look) error {
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("note server: %w", err)
	}
	s.c.Hook("harness:look:before")
	_, err = s.lookLog.Write(append(b, '\n'))
	if err = errors.Join(err, s.lookLog.Sync()); err != nil {
		return fmt.Errorf("note server: %w", err)
	}
	s.c.Hook("harness:look:after")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks = append(s.looks, k)
	s.seen[k.Arm] = sight{k.Seq + 1, k.Identity.ID()}
	return nil
}

// worked is how long the processes worked that took these looks, each from its
// first look to its last.
func worked(looks []Look) (sum time.Duration) {
	begun := map[string]Look{}
	var longest map[string]time.Duration
	flush := func() {
		var most time.Duration
		for _, d := range longest {
			most = max(most, d)
		}
		sum += most
		longest = map[string]time.Duration{}
	}
	for _, k := range looks {
		if k.Moment == "before" {
			if _, again := begun[k.Arm]; again {
				flush()
				clear(begun)
			}
			if len(begun) == 0 {
				longest = map[string]time.Duration{}
			}
			begun[k.Arm] = k
			continue
		}
		if b, ok := begun[k.Arm]; ok {
			longest[k.Arm] = max(longest[k.Arm], k.At.Sub(b.At))
		}
	}
	flush()
	return sum
}
