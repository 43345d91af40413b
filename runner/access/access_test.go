package access

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/store"
)

func open(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

func TestKeysOpenWhatTheySay(t *testing.T) {
	st, now := open(t), time.Now()
	g := Grant{Name: "ci", Scopes: []string{Submit}, Queues: []string{"local"}, MaxGPUHours: 3}
	token, k, err := New(t.Context(), st, rand.Reader, g, now.Add(time.Hour), store.Audit{Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(token, "rpm_"+k.ID+"_") || len(token) != 65 {
		t.Errorf("token %q", token)
	}
	if stored, _ := st.Key(t.Context(), k.ID); bytes.Contains(stored.Hash, []byte(token[13:])) || strings.Contains(string(stored.Grant), token[13:]) {
		t.Error("the secret is stored")
	}
	id, err := Check(t.Context(), st, token, now)
	if err != nil || id.ID != k.ID || id.MaxGPUHours != 3 || !id.May(Submit) || !id.May(Read) || id.May(Approve) || id.May(Admin) || id.Queue("docker") || !id.Queue("local") {
		t.Errorf("identity = %+v, %v", id, err)
	}
	other := "a"
	if strings.HasSuffix(token, other) {
		other = "b"
	}
	for name, bad := range map[string]string{
		"empty": "", "no prefix": token[4:], "wrong secret": token[:len(token)-1] + other, "short": token[:20], "long": token + token,
		"of nobody": "rpm_00000000_" + token[13:], "id alone": "rpm_" + k.ID + "_",
	} {
		if _, err := Check(t.Context(), st, bad, now); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Check(t.Context(), st, token, now.Add(2*time.Hour)); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("later: %v", err)
	}
	if err := st.RevokeKey(t.Context(), k.ID, store.Audit{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), st, token, now); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("after revoking: %v", err)
	}
}

func TestGrantsThatCannotBeMeant(t *testing.T) {
	for name, g := range map[string]Grant{
		"no name": {Scopes: []string{Read}}, "control": {Name: "a\nb", Scopes: []string{Read}}, "no scope": {Name: "a"},
		"strange scope": {Name: "a", Scopes: []string{"root"}}, "negative": {Name: "a", Scopes: []string{Read}, MaxUSD: -1},
	} {
		var e *Error
		if err := g.Check(); !errors.As(err, &e) || e.UserError() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1e9, 0)
	for i := range 60 {
		if a := l.Allow("a", 60, now); !a.OK || a.Remaining != 59-i {
			t.Fatalf("request %d: %+v", i, a)
		}
	}
	if a := l.Allow("a", 60, now); a.OK || a.Retry != time.Second || a.Reset != time.Minute {
		t.Errorf("one too many: %+v", a)
	}
	if a := l.Allow("b", 60, now); !a.OK {
		t.Error("another caller has to wait")
	}
	if a := l.Allow("a", 60, now.Add(-time.Hour)); a.OK {
		t.Error("a clock that jumps back gives requests")
	}
	if a := l.Allow("a", 60, now.Add(2*time.Hour)); !a.OK || a.Remaining != 59 {
		t.Errorf("after a long time: %+v", a)
	}
	for i := range maxBuckets + 100 {
		l.Allow(fmt.Sprint("x", i), 60, now)
	}
	if n := len(l.buckets); n > maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("rpm_abcdefgh_" + strings.Repeat("a", 52))
	f.Add("rpm__")
	f.Fuzz(func(t *testing.T, s string) {
		if id, secret, ok := split(s); ok && Prefix+id+"_"+secret != s {
			t.Errorf("split(%q) = %q, %q", s, id, secret)
		}
	})
}
